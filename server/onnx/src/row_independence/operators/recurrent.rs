//! Recurrent layers: they run over time, and rows are on another axis.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Dependence, Value, length};

/// `LSTM`, `GRU` and `RNN`.
pub(super) fn recurrent(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let batch_first = call.flag("layout");
    let (input_axis, state_axis) = if batch_first { (0, 0) } else { (1, 1) };
    let Dependence::Rows { axis, each } = &value.dependence else {
        return Err(call.undecided("has rows in its state alone"));
    };
    if *axis != input_axis {
        return Err(
            call.mixes(&format!("runs over axis {axis}, which counts the rows, as over time or features"))
        );
    }
    for (index, operand) in call.operands.iter().enumerate().skip(1) {
        let Some(operand) = operand else { continue };
        // Weights, recurrent weights, bias, lengths, first hidden state, first cell state, peepholes.
        let expected = match index {
            4 => Some(0),
            5 | 6 if index == 5 || call.node.operator == "LSTM" => Some(state_axis),
            _ => None,
        };
        match (&operand.dependence, expected) {
            (Dependence::Shared, None) => {}
            (Dependence::Rows { axis, each: other }, Some(expected))
                if *axis == expected && other == each => {}
            (Dependence::Shared, Some(_)) => {
                return Err(
                    call.undecided("has lengths or a first state that are the same for any number of rows")
                );
            }
            (Dependence::Count, _) => return Err(call.mixes("uses the number of rows as a value")),
            (_, None) => return Err(call.mixes("has weights that rows give")),
            (_, Some(_)) => {
                return Err(call.undecided("has lengths or a first state that are not one for each row"));
            }
        }
    }
    let directions = if call.text("direction") == Some("bidirectional") { 2 } else { 1 };
    let directions = length(directions);
    let hidden = call.integer("hidden_size").map_or_else(|| unknowns.size(), Size::known);
    let time = value.shape.as_ref().and_then(|shape| shape.get(1 - input_axis).cloned());
    let time = time.unwrap_or_else(|| unknowns.size());
    let rows = Size::rows();
    let (all, last) = match batch_first {
        true => (
            Value::rows(0, each.clone(), Some(vec![rows.clone(), time, directions.clone(), hidden.clone()])),
            Value::rows(0, each.clone(), Some(vec![rows, directions, hidden])),
        ),
        false => (
            Value::rows(2, each.clone(), Some(vec![time, directions.clone(), rows.clone(), hidden.clone()])),
            Value::rows(1, each.clone(), Some(vec![directions, rows, hidden])),
        ),
    };
    Ok(vec![all, last.clone(), last])
}

pub(super) fn reverse_sequence(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let (value, lengths) = (call.operand(0)?, call.operand(1)?);
    let (batch, time) = (call.integer("batch_axis").unwrap_or(1), call.integer("time_axis").unwrap_or(0));
    let (batch, time) = (call.axis(batch, value.rank())?, call.axis(time, value.rank())?);
    match (&value.dependence, &lengths.dependence) {
        (Dependence::Rows { axis, .. }, _) if *axis == time => {
            Err(call.mixes(&format!("reverses axis {axis}, which counts the rows")))
        }
        (Dependence::Rows { axis, each }, Dependence::Rows { axis: 0, each: other })
            if *axis == batch && each == other =>
        {
            Ok(vec![value.without_content()])
        }
        (Dependence::Rows { axis, .. }, Dependence::Shared) if *axis != batch => {
            Ok(vec![value.without_content()])
        }
        _ => Err(call.undecided("has lengths that are not one for each row")),
    }
}
