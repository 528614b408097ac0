//! To come.

pub mod policy;
