//! The semantic check: types, argument counts, what may be matched how.
//!
//! Walks the tree with a stack of its own and finds errors in upstream's order, since only the first is shown. It
//! also completes the tree: set operators become many-to-many, and an operation with a scalar loses its matching.

use chronolith_model::METRIC_NAME;

use super::ast::{Binary, Cardinality, ExprId, NodeKind, Span, ValueType, VectorMatching};
use super::functions::FunctionId;
use super::ops::AggregateOp;
use super::quote::go_quote;
use super::source::Parser;

impl VectorMatching {
    /// True when a missing side is filled in.
    pub fn fills(&self) -> bool {
        self.fill_left.is_some() || self.fill_right.is_some()
    }
}

/// What is still to be looked at; the last one first.
enum Work {
    /// The expression and everything below it.
    Check(ExprId),
    /// The type of an aggregation's vector or parameter.
    Expect { id: ExprId, want: ValueType, context: &'static str },
    /// The type of a call's argument.
    Argument { call: ExprId, index: usize },
    /// The expression itself: what is below has been checked.
    After(ExprId),
}

impl Parser<'_> {
    /// Checks the tree below `root`.
    pub(super) fn check(&mut self, root: ExprId) {
        let mut work = vec![Work::Check(root)];
        while let Some(item) = work.pop() {
            match item {
                Work::Check(id) => self.before(id, &mut work),
                Work::After(id) => self.after(id),
                Work::Expect { id, want, context } => {
                    let got = self.node(id).value_type;
                    if got != want {
                        let message = format!(
                            "expected type {} in {context}, got {}",
                            want.documented(),
                            got.documented()
                        );
                        self.error(self.span(id), message);
                    }
                }
                Work::Argument { call, index } => self.argument(call, index),
            }
        }
    }

    /// What is checked before the children; puts these on the list.
    fn before(&mut self, id: ExprId, work: &mut Vec<Work>) {
        match &self.nodes[id.index()].kind {
            NodeKind::Number { .. } | NodeKind::String(_) => {}
            NodeKind::VectorSelector(_) => self.after(id),
            NodeKind::Paren(inner) => work.push(Work::Check(*inner)),
            NodeKind::MatrixSelector(matrix) => work.push(Work::Check(matrix.selector)),
            NodeKind::Subquery(subquery) => {
                work.extend([Work::After(id), Work::Check(subquery.expr)]);
            }
            NodeKind::Unary { expr, .. } => work.extend([Work::After(id), Work::Check(*expr)]),
            NodeKind::Binary(binary) => {
                work.extend([Work::After(id), Work::Check(binary.rhs), Work::Check(binary.lhs)]);
            }
            NodeKind::Aggregate(aggregate) => {
                if let Some(param) = aggregate.param {
                    let want = if aggregate.op == AggregateOp::CountValues {
                        ValueType::String
                    } else {
                        ValueType::Scalar
                    };
                    work.push(Work::Expect { id: param, want, context: "aggregation parameter" });
                    work.push(Work::Check(param));
                }
                let vector = aggregate.expr;
                let want = ValueType::Vector;
                work.push(Work::Expect { id: vector, want, context: "aggregation expression" });
                work.push(Work::Check(vector));
            }
            NodeKind::Call(call) => {
                let (func, args) = (call.func, call.args.clone());
                // Arguments beyond the declared ones are looked at only where any number is allowed.
                let checked =
                    if func.variadic == 0 { args.len().min(func.arg_types.len()) } else { args.len() };
                for index in (0..checked).rev() {
                    work.push(Work::Argument { call: id, index });
                    work.push(Work::Check(args[index]));
                }
                self.argument_count(id);
                if func.id == FunctionId::Info
                    && let Some(&second) = args.get(1)
                {
                    self.info_selector(id, second);
                }
            }
        }
    }

    fn argument_count(&mut self, id: ExprId) {
        let NodeKind::Call(call) = &self.node(id).kind else { return };
        let (func, got) = (call.func, call.args.len());
        let declared = func.arg_types.len();
        let (relation, bound) = if func.variadic == 0 {
            if got == declared {
                return;
            }
            ("", declared)
        } else {
            let least = declared.saturating_sub(1);
            let most = usize::try_from(func.variadic).map_or(usize::MAX, |extra| least + extra);
            if got < least {
                ("at least ", least)
            } else if got > most {
                ("at most ", most)
            } else {
                return;
            }
        };
        let message = format!("expected {relation}{bound} argument(s) in call to {:?}, got {got}", func.name);
        self.error(self.span(id), message);
    }

    /// The second argument of `info` is a bare selector of labels, and may match everything.
    fn info_selector(&mut self, call: ExprId, second: ExprId) {
        let value_type = self.node(second).value_type;
        if value_type != ValueType::Vector {
            let message = format!(
                "expected type instant vector in call to function \"info\", got {}",
                value_type.documented()
            );
            self.error(self.span(call), message);
        }
        let problem = match &mut self.node_mut(second).kind {
            NodeKind::VectorSelector(selector) if selector.name.is_empty() => {
                selector.may_match_all = true;
                return;
            }
            NodeKind::VectorSelector(_) => "expected label selectors only, got vector selector instead",
            _ => "expected label selectors only",
        };
        self.error(self.span(second), problem);
    }

    fn argument(&mut self, call: ExprId, index: usize) {
        let NodeKind::Call(call) = &self.node(call).kind else { return };
        let func = call.func;
        let Some(&want) = func.arg_types.get(index).or(func.arg_types.last()) else { return };
        let argument = call.args[index];
        let got = self.node(argument).value_type;
        if got != want {
            let message = format!(
                "expected type {} in call to function {:?}, got {}",
                want.documented(),
                func.name,
                got.documented()
            );
            self.error(self.span(argument), message);
        }
    }

    /// What is checked after the children.
    fn after(&mut self, id: ExprId) {
        let span = self.span(id);
        match &self.node(id).kind {
            NodeKind::Binary(_) => self.binary_operation(id),
            NodeKind::VectorSelector(_) => self.selector(id),
            NodeKind::Unary { expr, .. } => {
                let got = self.node(*expr).value_type;
                if !matches!(got, ValueType::Scalar | ValueType::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        got.documented()
                    );
                    self.error(span, message);
                }
            }
            NodeKind::Subquery(subquery) => {
                let got = self.node(subquery.expr).value_type;
                if got != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", got.as_str());
                    self.error(span, message);
                }
            }
            _ => {}
        }
    }

    fn selector(&mut self, id: ExprId) {
        let NodeKind::VectorSelector(selector) = &self.node(id).kind else { return };
        let mut problems = Vec::new();
        if !selector.name.is_empty() {
            // The last matcher is that of the name.
            let others = selector.matchers.split_last().map_or(&[][..], |(_, others)| others);
            for matcher in others.iter().filter(|m| m.name == METRIC_NAME) {
                problems.push(format!(
                    "metric name must not be set twice: {} or {}",
                    go_quote(selector.name.as_bytes()),
                    go_quote(matcher.value.as_bytes())
                ));
            }
        } else if !selector.may_match_all && selector.matchers.iter().all(|m| m.matches_empty()) {
            problems.push("vector selector must contain at least one non-empty matcher".to_owned());
        }
        let span = self.span(id);
        for problem in problems {
            self.error(span, problem);
        }
    }

    fn binary_operation(&mut self, id: ExprId) {
        let span = self.span(id);
        let NodeKind::Binary(binary) = &mut self.nodes[id.index()].kind else { return };
        let op = binary.op;
        if let Some(matching) = &mut binary.matching
            && op.is_set()
            && matching.card == Cardinality::OneToOne
        {
            matching.card = Cardinality::ManyToMany;
        }
        let NodeKind::Binary(binary) = &self.nodes[id.index()].kind else { return };
        let (lhs, rhs) = (self.node(binary.lhs), self.node(binary.rhs));
        let (left, right) = (lhs.value_type, rhs.value_type);
        let mut problems: Vec<(Span, String)> = Vec::new();

        if binary.return_bool && !op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators".to_owned();
            problems.push((self.operator_span(binary), message));
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            let message = "comparisons between scalars must use BOOL modifier".to_owned();
            problems.push((self.operator_span(binary), message));
        }
        for label in binary.matching.iter().flat_map(twice_named) {
            let label = go_quote(label.as_bytes());
            let message = format!("label {label} must not occur in ON and GROUP clause at once");
            problems.push((self.operator_span(binary), message));
        }
        for side in [lhs, rhs] {
            if !matches!(side.value_type, ValueType::Scalar | ValueType::Vector) {
                let message =
                    "binary expression must contain only scalar and instant vector types".to_owned();
                problems.push((side.span, message));
            }
        }
        let vectors = left == ValueType::Vector && right == ValueType::Vector;
        if let Some(matching) = &binary.matching {
            if !vectors {
                if !matching.labels.is_empty() {
                    problems.push((span, "vector matching only allowed between instant vectors".to_owned()));
                }
                if matching.fills() {
                    let message = "filling in missing series only allowed between instant vectors";
                    problems.push((span, message.to_owned()));
                }
            } else if op.is_set() {
                if matches!(matching.card, Cardinality::ManyToOne | Cardinality::OneToMany) {
                    let message = format!("no grouping allowed for \"{op}\" operation");
                    problems.push((span, message));
                    problems.push((span, "set operations must always be many-to-many".to_owned()));
                }
                if matching.fills() {
                    let message = "filling in missing series not allowed for set operators";
                    problems.push((span, message.to_owned()));
                }
            }
        }
        if (left == ValueType::Scalar || right == ValueType::Scalar) && op.is_set() {
            problems.push((span, format!("set operator \"{op}\" not allowed in binary scalar expression")));
        }

        if !vectors && let NodeKind::Binary(binary) = &mut self.nodes[id.index()].kind {
            binary.matching = None;
        }
        for (span, message) in problems {
            self.error(span, message);
        }
    }

    /// Where the operator and its modifiers stand.
    fn operator_span(&self, binary: &Binary) -> Span {
        let text = self.input().as_bytes();
        let is_space =
            |at: u32| text.get(at as usize).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        let mut span = Span::new(self.span(binary.lhs).end, self.span(binary.rhs).start);
        while is_space(span.start) {
            span.start += 1;
        }
        while span.end > span.start && is_space(span.end - 1) {
            span.end -= 1;
        }
        span
    }
}

/// The labels that are both in `on` and in `group_left` or `group_right`.
fn twice_named(matching: &VectorMatching) -> impl Iterator<Item = &String> {
    let on = if matching.on { matching.labels.as_slice() } else { &[] };
    on.iter().flat_map(|label| matching.include.iter().filter(move |other| *other == label))
}
