//! Convolutions, poolings and resizing: each row is an image by itself, on axis 0.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Element, Value, Verdict};

/// `Conv` and its kin, whose operands behind the first are weights.
pub(super) fn convolution(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let weights = call.operand(if call.node.operator.starts_with("QLinear") { 3 } else { 1 })?;
    for (index, value) in call.operands.iter().enumerate().skip(1) {
        let added = call.node.operator == "FusedConv" && index == 3;
        if value.as_ref().is_some_and(|value| value.row_axis().is_some() && !added) {
            let other = if index == 1 { "has filters" } else { "has settings" };
            return Err(
                call.mixes(&format!("{other} that rows give, and applies those of all rows to each row"))
            );
        }
    }
    let value = call.operand(0)?;
    images(call, value)?;
    if call.node.operator == "FusedConv"
        && call.optional(3).is_some_and(|added| added.dependence != value.dependence)
    {
        return Err(call.undecided("adds what is not one image for each"));
    }
    let channels = weights.shape.as_ref().and_then(|shape| shape.first().cloned());
    let kernel = match call.integers("kernel_shape") {
        Some(kernel) => Some(kernel.to_vec()),
        None => weights.shape.as_ref().and_then(|shape| shape.get(2..)?.iter().map(Size::value).collect()),
    };
    let mut result = value.without_content();
    if let Some(shape) = &mut result.shape {
        let transposed = call.node.operator == "ConvTranspose";
        if shape.len() > 1 {
            shape[1] = channels.filter(|_| !transposed).unwrap_or_else(|| unknowns.size());
        }
        for (place, size) in shape.iter_mut().skip(2).enumerate() {
            let window = kernel.as_ref().and_then(|kernel| kernel.get(place)).filter(|_| !transposed);
            *size =
                window.and_then(|&window| slid(call, place, window, size)).unwrap_or_else(|| unknowns.size());
        }
    }
    Ok(vec![result])
}

pub(super) fn pool(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    images(call, value)?;
    let kernel = call.integers("kernel_shape").unwrap_or_default();
    let mut result = value.without_content();
    for (place, size) in result.shape.iter_mut().flatten().skip(2).enumerate() {
        let window = kernel.get(place);
        *size = window.and_then(|&window| slid(call, place, window, size)).unwrap_or_else(|| unknowns.size());
    }
    if call.node.outputs.get(1).is_some_and(|output| !output.is_empty()) {
        let verdict = call.undecided("numbers the places of entries across all rows");
        return Ok(vec![result, Value::lost(verdict)]);
    }
    Ok(vec![result])
}

pub(super) fn global_pool(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    images(call, value)?;
    let mut result = value.without_content();
    for size in result.shape.iter_mut().flatten().skip(2) {
        *size = Size::one();
    }
    Ok(vec![result])
}

/// Between depth and space, and other work inside an image.
pub(super) fn within_image(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    images(call, value)?;
    let mut result = value.without_content();
    for size in result.shape.iter_mut().flatten().skip(1) {
        *size = unknowns.size();
    }
    Ok(vec![result])
}

/// `Col2Im`: as many dimensions as the operand says that the images have.
pub(super) fn columns_to_image(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    call.setting(1, "image's shape")?;
    call.setting(2, "block's shape")?;
    let value = call.operand(0)?;
    images(call, value)?;
    Ok(vec![Value { shape: None, ..value.without_content() }])
}

/// `GridSample` and `DeformConv`: an image, and for each image places in it.
pub(super) fn sampled(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let weights = if call.node.operator == "DeformConv" { &[1_usize, 3][..] } else { &[] };
    for (index, operand) in call.operands.iter().enumerate().skip(1) {
        let Some(operand) = operand else { continue };
        let expected = match weights.contains(&index) {
            true => operand.is_shared(),
            false => operand.dependence == value.dependence,
        };
        if !expected {
            return Err(call.undecided("combines images with what is not one for each"));
        }
    }
    within_image(call, unknowns)
}

/// # Errors
/// The rows are not on axis 0.
fn images(call: &Call<'_, '_>, value: &Value) -> Result<(), Verdict> {
    match value.row_axis() {
        Some(axis @ 1..) => Err(call.mixes(&format!("looks along axis {axis}, which counts the rows"))),
        _ => Ok(()),
    }
}

/// The size of an axis along which a window slides, where it can be told.
fn slid(call: &Call<'_, '_>, place: usize, window: i64, size: &Size) -> Option<Size> {
    let at = |name: &str, place: usize, default: i64| {
        call.integers(name).and_then(|values| values.get(place).copied()).unwrap_or(default)
    };
    let stride = at("strides", place, 1);
    let dilation = at("dilations", place, 1);
    let reach = dilation.checked_mul(window.checked_sub(1)?)?.checked_add(1)?;
    match call.text("auto_pad").unwrap_or("NOTSET") {
        "SAME_UPPER" | "SAME_LOWER" if stride == 1 => return Some(size.clone()),
        "SAME_UPPER" | "SAME_LOWER" => {
            return Some(Size::known(size.value()?.checked_add(stride - 1)?.checked_div(stride)?));
        }
        _ => {}
    }
    let dimensions = call.integers("pads").map_or(0, <[i64]>::len) / 2;
    let padding = at("pads", place, 0).checked_add(at("pads", place + dimensions, 0))?;
    if stride == 1 && padding == reach - 1 {
        return Some(size.clone());
    }
    if call.flag("ceil_mode") {
        return None;
    }
    let room = size.value()?.checked_add(padding)?.checked_sub(reach)?;
    Some(Size::known(room.checked_div(stride)?.checked_add(1)?))
}

pub(super) fn resize(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let upsamples = call.node.operator == "Upsample";
    let by_attribute =
        call.floats("scales").map(|scales| scales.iter().copied().map(Element::Float).collect());
    // Since version 11 a region comes first.
    let (scales_at, sizes_at) = if upsamples || call.version < 11 { (1, 2) } else { (2, 3) };
    if call.text("coordinate_transformation_mode") == Some("tf_crop_and_resize") {
        call.setting(1, "region")?;
    }
    let scales: Option<Vec<Element>> = match (by_attribute, call.setting(scales_at, "scales")?) {
        (Some(scales), _) => Some(scales),
        (None, Some(scales)) => scales.elements(unknowns).filter(|scales| !scales.is_empty()),
        (None, None) => None,
    };
    let sizes = match call.optional(sizes_at) {
        Some(sizes) if sizes.row_axis().is_some() => {
            return Err(call.mixes("takes its sizes from the values of the rows"));
        }
        Some(sizes) => sizes.elements(unknowns),
        None => None,
    };
    let axes = match (call.integers("axes"), value.rank()) {
        (Some(axes), rank) => {
            axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(rank)) => (0..rank).collect(),
        (None, None) if value.is_shared() => return Ok(vec![Value::shared(None)]),
        (None, None) => return Err(call.unranked()),
    };
    let Some(rows) = value.row_axis() else {
        return Ok(vec![Value { shape: None, ..value.without_content() }]);
    };
    let mut result = value.without_content();
    let unclear = || call.undecided("may resize the axis of the rows");
    for (place, axis) in axes.into_iter().enumerate() {
        let scale = scales.as_ref().and_then(|scales| scales.get(place));
        let size = sizes.as_ref().and_then(|sizes| sizes.get(place)).and_then(Element::size);
        let here = result.shape.as_mut().and_then(|shape| shape.get_mut(axis));
        if axis == rows {
            let stays = match (scale.and_then(Element::number), size, here) {
                (Some(scale), ..) => scale == 1.0,
                (None, Some(size), Some(here)) => size == here,
                _ => false,
            };
            let known = scale.and_then(Element::number).is_some();
            match (stays, known) {
                (true, _) => {}
                (false, true) => return Err(call.mixes("resizes the axis of the rows")),
                (false, false) => return Err(unclear()),
            }
        } else if let Some(here) = here {
            if size.is_some_and(Size::counts_rows) {
                return Err(call.mixes("takes its sizes from the number of rows"));
            }
            *here = unknowns.size();
        }
    }
    // With a policy that keeps proportions, the size of one axis depends on those of the others.
    if call.text("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch") && !call.has("axes") {
        return Err(unclear());
    }
    Ok(vec![result])
}
