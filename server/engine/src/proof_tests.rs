//! Models that mix rows in different ways, and models that do not: what samples say of each.

use expect_test::{Expect, expect};

use super::*;
use crate::backend::{InputView, Stopper};
use crate::comparison::{Elements, elements};
use crate::tensor::{DType, Dim, TensorSpec};

type Values = Vec<Vec<f64>>;
type Function = fn(&[Values]) -> Result<Values, &'static str>;

/// A model that is a function of the rows of its inputs, as numbers.
struct Model {
    signature: Signature,
    function: Function,
}

fn spec(name: &str, dtype: DType, row: &[usize], optional: bool) -> TensorSpec {
    let mut dims = vec![Dim::Dynamic(None)];
    dims.extend(row.iter().map(|size| Dim::Fixed(*size)));
    TensorSpec { name: name.into(), dtype, shape: Some(dims), optional, labels: Vec::new() }
}

fn model(inputs: &[(DType, &[usize])], function: Function) -> Model {
    let inputs = inputs
        .iter()
        .enumerate()
        .map(|(n, (dtype, row))| spec(&format!("x{n}"), *dtype, row, false))
        .collect();
    let outputs = vec![spec("y", DType::Fp64, &[1], false)];
    Model { signature: Signature { inputs, outputs, batch: BatchAxis::Rows }, function }
}

fn numbers(view: &InputView<'_>) -> Values {
    let tensor = Tensor::new(view.dtype, view.shape, bytes::Bytes::copy_from_slice(view.data)).unwrap();
    let values: Vec<f64> = match elements(&tensor) {
        Elements::Real(values) => values,
        Elements::Whole(values) => values.into_iter().map(|value| value as f64).collect(),
        Elements::Text(texts) => texts.iter().map(|text| text.split(|b| *b == b' ').count() as f64).collect(),
    };
    values.chunks(values.len() / view.shape[0]).map(<[f64]>::to_vec).collect()
}

impl Instance for Model {
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> {
        let inputs: Vec<Values> = inputs.iter().flatten().map(numbers).collect();
        let rows = (self.function)(&inputs).map_err(|why| RunError::Input(why.into()))?;
        let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
        let data: Vec<u8> = rows.concat().iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(vec![Tensor::new(DType::Fp64, shape.as_slice(), data.into()).unwrap()])
    }

    fn stopper(&self) -> Stopper {
        Stopper::cannot("a function")
    }
}

impl Runs for Model {
    fn run(&mut self, sample: &Sample) -> Result<Vec<Tensor>, RunError> {
        sample.run(self)
    }
}

fn verdict(mut model: Model, rigour: Rigour) -> String {
    let signature = model.signature.clone();
    match prove(&signature, rigour, &mut model).unwrap() {
        Verdict::Apart(_) => "apart".into(),
        Verdict::Mixed(why) => format!("mixed: {why}"),
        Verdict::Nothing(why) => format!("nothing: {why}"),
    }
}

fn is_mixed(inputs: &[(DType, &[usize])], function: Function) -> bool {
    verdict(model(inputs, function), Rigour::Any).starts_with("mixed")
}

fn check(inputs: &[(DType, &[usize])], function: Function, expected: Expect) {
    expected.assert_eq(&verdict(model(inputs, function), Rigour::Any));
}

const FLOATS: (DType, &[usize]) = (DType::Fp32, &[4]);
const LENGTHS: (DType, &[usize]) = (DType::Int64, &[]);

fn sum(row: &[f64]) -> f64 {
    row.iter().filter(|value| value.is_finite()).sum()
}

/// One output a row, by a function of it.
fn each(rows: &Values, function: impl Fn(&[f64]) -> f64) -> Result<Values, &'static str> {
    Ok(rows.iter().map(|row| vec![function(row)]).collect())
}

#[test]
fn what_treats_rows_one_by_one_is_apart() {
    check(&[FLOATS], |x| each(&x[0], sum), expect!["apart"]);
    // Missing values, and lengths of each row's own.
    check(&[FLOATS], |x| each(&x[0], |row| row.iter().sum()), expect!["apart"]);
    check(
        &[FLOATS, LENGTHS],
        |x| {
            let own = |(row, length): (&Vec<f64>, &Vec<f64>)| {
                vec![row.iter().take(length[0] as usize).filter(|v| v.is_finite()).sum::<f64>()]
            };
            Ok(x[0].iter().zip(&x[1]).map(own).collect())
        },
        expect!["apart"],
    );
    check(&[(DType::Bytes, &[1])], |x| each(&x[0], sum), expect!["apart"]);
    check(&[(DType::Bool, &[3])], |x| each(&x[0], sum), expect!["apart"]);
}

#[test]
fn statistics_of_the_batch_are_found() {
    fn minus_mean(x: &[Values]) -> Result<Values, &'static str> {
        let mean = x[0].iter().map(|row| sum(row)).sum::<f64>() / x[0].len() as f64;
        each(&x[0], |row| sum(row) - mean)
    }
    assert!(is_mixed(&[FLOATS], minus_mean));
    assert!(is_mixed(&[FLOATS], |x| each(&x[0], |row| row[0] / x[0].len() as f64)));
    assert!(is_mixed(&[FLOATS], |x| {
        let largest = x[0].iter().map(|row| row[0].abs()).fold(0.0, f64::max).max(1e-9);
        each(&x[0], |row| row[0] / largest)
    }));
}

#[test]
fn neighbours_and_places_are_found() {
    assert!(is_mixed(&[FLOATS], |x| Ok((0..x[0].len())
        .map(|n| vec![sum(&x[0][n.saturating_sub(1)])])
        .collect())));
    assert!(is_mixed(&[FLOATS], |x| Ok((0..x[0].len()).map(|n| vec![sum(&x[0][n]) + n as f64]).collect())));
    // Sorted, and of the first row alone.
    assert!(is_mixed(&[FLOATS], |x| {
        let mut rows: Values = x[0].iter().map(|row| vec![sum(row)]).collect();
        rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
        Ok(rows)
    }));
    assert!(is_mixed(&[FLOATS], |x| each(&x[0], |row| sum(row) + 0.01 * sum(&x[0][0]))));
}

#[test]
fn lengths_in_a_third_input_are_found() {
    // The longest of the batch is taken for all, as where a sequence is cut to the first row's length.
    assert!(is_mixed(&[FLOATS, FLOATS, LENGTHS], |x| {
        let length = x[2][0][0] as usize;
        Ok(x[0].iter().zip(&x[1]).map(|(a, b)| vec![sum(&a[..length.min(4)]) + sum(b)]).collect())
    }));
    assert!(is_mixed(&[FLOATS, FLOATS, LENGTHS], |x| {
        let longest = x[2].iter().map(|row| row[0]).fold(0.0, f64::max);
        each(&x[0], |row| sum(row) + longest)
    }));
}

#[test]
fn a_loop_until_all_rows_end_is_found() {
    assert!(is_mixed(&[LENGTHS], |x| {
        let columns = x[0].iter().map(|row| row[0] as usize).max().unwrap_or(0) % 50 + 1;
        Ok(x[0].iter().map(|row| vec![row[0]; columns]).collect())
    }));
}

#[test]
fn texts_that_are_cut_to_the_longest_row_are_found() {
    assert!(is_mixed(&[(DType::Bytes, &[1])], |x| {
        let longest = x[0].iter().map(|row| row[0]).fold(0.0, f64::max) as usize;
        Ok(x[0].iter().map(|row| vec![row[0]; longest]).collect())
    }));
    // Only beside the longest texts.
    assert!(is_mixed(&[(DType::Bytes, &[1])], |x| {
        let is_long = x[0].iter().any(|row| row[0] > 8.0);
        each(&x[0], |row| row[0] + f64::from(is_long))
    }));
}

#[test]
fn what_only_large_missing_or_padded_rows_show_is_found() {
    // The whole batch is clipped when one row is large.
    assert!(is_mixed(&[FLOATS], |x| {
        let is_large = x[0].iter().flatten().any(|value| value.abs() > 100.0);
        each(&x[0], |row| if is_large { sum(row).clamp(-0.1, 0.1) } else { sum(row) })
    }));
    assert!(is_mixed(&[FLOATS], |x| {
        let is_missing = x[0].iter().flatten().any(|value| value.is_nan());
        each(&x[0], |row| if is_missing { 0.0 } else { sum(row) })
    }));
    assert!(is_mixed(&[FLOATS], |x| {
        let is_empty = x[0].iter().any(|row| row.iter().all(|value| *value == 0.0));
        each(&x[0], |row| sum(row) + f64::from(is_empty))
    }));
    // Sizes of the batch alone.
    assert!(is_mixed(&[FLOATS], |x| each(&x[0], |row| sum(row) + f64::from(u8::from(x[0].len() >= 8)))));
}

#[test]
fn what_cannot_run_proves_nothing() {
    check(
        &[FLOATS],
        |x| match x[0].iter().flatten().all(|value| *value == 0.0) {
            true => each(&x[0], sum),
            false => Err("only zeros"),
        },
        expect!["nothing: no sample whose rows differ runs: only zeros"],
    );
    check(&[FLOATS], |x| each(&x[0], |_| 1.0), expect!["nothing: all sample rows have the same outputs"]);
}

#[test]
fn values_are_narrowed_input_by_input() {
    // One takes indices below 9, the other those below 60: with the same bound for both the second would hide.
    fn looked_up(x: &[Values]) -> Result<Values, &'static str> {
        if x[0].iter().any(|row| row[0] >= 9.0) || x[1].iter().any(|row| row[0] >= 101.0) {
            return Err("no such index");
        }
        let is_high = x[1].iter().any(|row| row[0] > 20.0);
        each(&x[0], |row| row[0] + f64::from(is_high && x[0].len() > 1))
    }
    assert!(is_mixed(&[LENGTHS, LENGTHS], looked_up));
}

#[test]
fn what_a_model_refuses_alone_is_said() {
    let mut model = model(&[FLOATS], |x| match x[0].iter().flatten().any(|value| value.is_nan()) {
        true => Err("not a number"),
        false => each(&x[0], sum),
    });
    let signature = model.signature.clone();
    let Some(Verdict::Apart(shown)) = prove(&signature, Rigour::Any, &mut model) else {
        panic!("it is apart")
    };
    expect![[r#"in 37 sample runs no output of a row differed by more than 0.0000 % of its scale by what else was in its batch, and 0.1 % is allowed (the model refuses missing values)"#]]
        .assert_eq(&shown.to_string());
}

/// Rounds by the largest number of the batch, as a model that is quantised as it runs.
fn quantised(x: &[Values]) -> Result<Values, &'static str> {
    let largest =
        x[0].iter().flatten().map(|value| value.abs()).filter(|v| v.is_finite()).fold(1e-9, f64::max);
    let step = largest / 127.0;
    each(&x[0], |row| row.iter().map(|value| (value / step).round() * step).filter(|v| v.is_finite()).sum())
}

#[test]
fn rounding_by_the_batch_takes_the_owners_word() {
    assert!(verdict(model(&[FLOATS], quantised), Rigour::Any).starts_with("mixed"));
    assert_eq!(verdict(model(&[FLOATS], quantised), Rigour::RoundingOnly), "apart");
    fn mean(x: &[Values]) -> Result<Values, &'static str> {
        let mean = x[0].iter().map(|row| row[0]).sum::<f64>() / x[0].len() as f64;
        each(&x[0], |row| row[0] - mean)
    }
    assert!(verdict(model(&[FLOATS], mean), Rigour::RoundingOnly).starts_with("mixed"));
}

#[test]
fn optional_inputs_are_given_too() {
    let mut model = model(&[FLOATS, FLOATS], |x| {
        let bias = x.get(1).map_or(0.0, |bias| bias.iter().map(|row| sum(row)).sum());
        each(&x[0], |row| sum(row) + bias)
    });
    model.signature.inputs[1].optional = true;
    assert!(verdict(model, Rigour::Any).starts_with("mixed"));
}

#[test]
fn state_between_runs_is_no_proof() {
    struct Counting(Model, f64);
    impl Runs for Counting {
        fn run(&mut self, sample: &Sample) -> Result<Vec<Tensor>, RunError> {
            self.1 += 1.0;
            let [output] = &sample.run(&mut self.0)?[..] else { panic!("one output") };
            let Elements::Real(values) = elements(output) else { panic!("floats") };
            let data: Vec<u8> = values.iter().flat_map(|value| (value + self.1).to_le_bytes()).collect();
            Ok(vec![Tensor::new(DType::Fp64, output.shape(), data.into()).unwrap()])
        }
    }
    let model = model(&[FLOATS], |x| each(&x[0], sum));
    let signature = model.signature.clone();
    let found = prove(&signature, Rigour::Any, &mut Counting(model, 0.0));
    assert!(
        matches!(found, Some(Verdict::Mixed(why)) if why.contains("differs when the same row runs again"))
    );
}

#[test]
fn a_first_look_finds_rows_and_what_runs() {
    let mut good = model(&[LENGTHS], |x| match x[0].iter().all(|row| row[0] < 8.0) {
        true => each(&x[0], sum),
        false => Err("too large"),
    });
    let found = look(&good.signature.clone(), Duration::MAX, &mut good);
    assert_eq!((found.batch, found.failure), (BatchAxis::Rows, None));
    assert!(found.recipe.is_some_and(|recipe| !recipe.is_plain && recipe.level(0) >= 2));
    let mut one_row = model(&[FLOATS], |x| Ok(vec![vec![sum(&x[0][0])]]));
    let BatchAxis::None { reason } = look(&one_row.signature.clone(), Duration::MAX, &mut one_row).batch
    else {
        panic!()
    };
    assert_eq!(reason, "output 'y' has shape [1, 1] for 2 rows: its first dimension does not count rows");
    let mut lone = model(&[FLOATS], |x| if x[0].len() > 1 { Err("one row") } else { each(&x[0], sum) });
    let BatchAxis::None { reason } = look(&lone.signature.clone(), Duration::MAX, &mut lone).batch else {
        panic!()
    };
    assert_eq!(reason, "2 rows do not run together: one row");
    let mut broken = model(&[FLOATS], |_| Err("never"));
    let found = look(&broken.signature.clone(), Duration::MAX, &mut broken);
    assert_eq!(
        (found.batch, found.failure.as_deref()),
        (BatchAxis::Rows, Some("sample inputs do not run: never"))
    );
}

#[test]
fn what_may_be_sizes_is_small_at_first() {
    let mut sizes = model(&[LENGTHS], |x| match x[0].iter().all(|row| row[0] < 2.0) {
        true => each(&x[0], sum),
        false => panic!("all memory"),
    });
    sizes.signature.batch = BatchAxis::None { reason: "sizes".into() };
    let found = look(&sizes.signature.clone(), Duration::MAX, &mut sizes);
    assert!(found.recipe.is_some_and(|recipe| !recipe.is_plain), "{:?}", found.failure);
}

#[test]
fn two_rows_are_not_run_where_there_is_no_time() {
    let mut lone = model(&[FLOATS], |x| if x[0].len() > 1 { Err("one row") } else { each(&x[0], sum) });
    let found = look(&lone.signature.clone(), Duration::ZERO, &mut lone);
    assert_eq!((found.batch, found.failure), (BatchAxis::Rows, None));
    assert!(found.recipe.is_some() && found.one_row.is_some());
}
