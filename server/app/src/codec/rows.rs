//! Whether the rows of outputs are those that were asked for, so that each can be given back with its own.

use gristmill_engine::error::InferError;

/// What to do where they are not.
pub(crate) const ASK_FOR_WHOLE_OUTPUTS: &str =
    "ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models";

/// # Errors
/// `InvalidInput` where the output called `name` does not have one entry for each of the `asked` rows.
pub(crate) fn check(asked: usize, name: &str, shape: &[usize]) -> Result<(), InferError> {
    let problem = match shape.first() {
        Some(&found) if found == asked => return Ok(()),
        Some(found) => format!("has {found} rows for {asked} that came"),
        None => "is one value and has no rows".to_owned(),
    };
    Err(InferError::InvalidInput(format!(
        "output '{name}' {problem}, so it cannot be told apart by row: {ASK_FOR_WHOLE_OUTPUTS}"
    )))
}
