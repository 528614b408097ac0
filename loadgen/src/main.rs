//! Real load for Loadline.

fn main() {}
