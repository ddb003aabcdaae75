//! PromQL: parser, plan, optimiser, operators, script runner.
