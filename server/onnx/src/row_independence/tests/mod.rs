//! Small graphs of each family of operators, and what is said of them.

mod builder;
mod classical;
mod control;
mod layout;
mod numeric;
mod selection;
