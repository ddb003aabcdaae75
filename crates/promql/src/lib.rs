//! PromQL: parser, plan, optimiser, operators, script runner.

pub mod parser;
