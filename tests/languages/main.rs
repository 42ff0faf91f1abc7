//! What programs of each language may count on: one table of cases per language, each on a server of its own and
//! on real Docker. What all languages must do is asked in `common`; what only one can do, in its own file.

#[path = "../support/mod.rs"]
mod support;

mod c;
mod case;
mod common;
mod cpp;
mod java;
mod javascript;
mod python;
