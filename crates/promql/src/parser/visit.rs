//! Walking a tree: children, selectors in order, comparing two trees, resolving duration expressions.

use super::ast::{Ast, DurationId, DurationKind, ExprId, NodeKind, VectorSelector};
use super::duration::evaluate_ms;

impl NodeKind {
    /// Calls `visit` with each child; an aggregation's vector before its parameter, a matrix selector's selector too.
    pub fn for_each_child(&self, mut visit: impl FnMut(ExprId)) {
        match self {
            NodeKind::Number { .. } | NodeKind::String(_) | NodeKind::VectorSelector(_) => {}
            NodeKind::MatrixSelector(matrix) => visit(matrix.selector),
            NodeKind::Subquery(subquery) => visit(subquery.expr),
            NodeKind::Paren(inner) => visit(*inner),
            NodeKind::Unary { expr, .. } => visit(*expr),
            NodeKind::Binary(binary) => {
                visit(binary.lhs);
                visit(binary.rhs);
            }
            NodeKind::Call(call) => call.args.iter().copied().for_each(visit),
            NodeKind::Aggregate(aggregate) => {
                visit(aggregate.expr);
                if let Some(param) = aggregate.param {
                    visit(param);
                }
            }
        }
    }

    /// The children, in the order of [`NodeKind::for_each_child`].
    pub fn children(&self) -> Vec<ExprId> {
        let mut children = Vec::new();
        self.for_each_child(|child| children.push(child));
        children
    }
}

impl Ast {
    /// Visits `root` and everything below it, parents first; `path` leads from `root` to the parent. What is below
    /// a node is skipped when `visit` answers false. Uses no recursion.
    pub fn walk(&self, root: ExprId, mut visit: impl FnMut(ExprId, &[ExprId]) -> bool) {
        let mut path: Vec<ExprId> = Vec::new();
        let mut todo = vec![(root, 0usize)];
        while let Some((id, depth)) = todo.pop() {
            path.truncate(depth);
            if !visit(id, &path) {
                continue;
            }
            path.push(id);
            let first = todo.len();
            self.kind(id).for_each_child(|child| todo.push((child, depth + 1)));
            todo[first..].reverse();
        }
    }

    /// The vector selectors below `root`, those of range selectors included, in upstream's order.
    pub fn selectors(&self, root: ExprId) -> Vec<(ExprId, &VectorSelector)> {
        let mut selectors = Vec::new();
        self.walk(root, |id, _| {
            if let NodeKind::VectorSelector(selector) = self.kind(id) {
                selectors.push((id, &**selector));
            }
            true
        });
        selectors
    }

    /// True when the two trees say the same; spans do not count, NaN equals NaN.
    pub fn same_tree(&self, other: &Ast) -> bool {
        let mut todo = vec![(self.root(), other.root())];
        while let Some((a, b)) = todo.pop() {
            if self.value_type(a) != other.value_type(b) || !self.same_node(a, other, b) {
                return false;
            }
            let (children, others) = (self.kind(a).children(), other.kind(b).children());
            if children.len() != others.len() {
                return false;
            }
            todo.extend(children.into_iter().zip(others));
        }
        true
    }

    /// Compares two nodes without their children.
    fn same_node(&self, a: ExprId, other: &Ast, b: ExprId) -> bool {
        let duration = |x: Option<DurationId>, y: Option<DurationId>| match (x, y) {
            (Some(x), Some(y)) => self.same_duration(x, other, y),
            (x, y) => x.is_none() && y.is_none(),
        };
        match (self.kind(a), other.kind(b)) {
            (NodeKind::Number { value: x, duration: xd }, NodeKind::Number { value: y, duration: yd }) => {
                same_number(*x, *y, *xd) && xd == yd
            }
            (NodeKind::String(x), NodeKind::String(y)) => x == y,
            (NodeKind::Paren(_), NodeKind::Paren(_)) => true,
            (NodeKind::Unary { op: x, .. }, NodeKind::Unary { op: y, .. }) => x == y,
            (NodeKind::Call(x), NodeKind::Call(y)) => x.func == y.func,
            (NodeKind::Aggregate(x), NodeKind::Aggregate(y)) => {
                x.op == y.op
                    && x.without == y.without
                    && x.grouping == y.grouping
                    && x.param.is_some() == y.param.is_some()
            }
            (NodeKind::Binary(x), NodeKind::Binary(y)) => {
                x.op == y.op
                    && x.return_bool == y.return_bool
                    && match (&x.matching, &y.matching) {
                        (Some(x), Some(y)) => {
                            (x.card, x.on, &x.labels, &x.include) == (y.card, y.on, &y.labels, &y.include)
                                && same_option(x.fill_left, y.fill_left)
                                && same_option(x.fill_right, y.fill_right)
                        }
                        (x, y) => x.is_none() && y.is_none(),
                    }
            }
            (NodeKind::VectorSelector(x), NodeKind::VectorSelector(y)) => {
                let sorted = |s: &VectorSelector| {
                    let mut matchers: Vec<String> = s.matchers.iter().map(ToString::to_string).collect();
                    matchers.sort_unstable();
                    matchers
                };
                x.name == y.name
                    && x.at == y.at
                    && x.original_offset_ms == y.original_offset_ms
                    && duration(x.original_offset_expr, y.original_offset_expr)
                    && (x.anchored, x.smoothed) == (y.anchored, y.smoothed)
                    && sorted(x) == sorted(y)
            }
            (NodeKind::MatrixSelector(x), NodeKind::MatrixSelector(y)) => {
                x.range_ms == y.range_ms && duration(x.range_expr, y.range_expr)
            }
            (NodeKind::Subquery(x), NodeKind::Subquery(y)) => {
                x.range_ms == y.range_ms
                    && x.step_ms == y.step_ms
                    && x.original_offset_ms == y.original_offset_ms
                    && x.at == y.at
                    && duration(x.range_expr, y.range_expr)
                    && duration(x.step_expr, y.step_expr)
                    && duration(x.original_offset_expr, y.original_offset_expr)
            }
            _ => false,
        }
    }

    fn same_duration(&self, a: DurationId, other: &Ast, b: DurationId) -> bool {
        let (x, y) = (self.duration(a), other.duration(b));
        x.wrapped == y.wrapped
            && match (x.kind, y.kind) {
                (
                    DurationKind::Number { value: x, duration: xd },
                    DurationKind::Number { value: y, duration: yd },
                ) => same_number(x, y, xd) && xd == yd,
                (DurationKind::Step, DurationKind::Step) | (DurationKind::Range, DurationKind::Range) => true,
                (DurationKind::Unary(x, a), DurationKind::Unary(y, b)) => {
                    x == y && self.same_duration(a, other, b)
                }
                (DurationKind::Binary(x, a, c), DurationKind::Binary(y, b, d)) => {
                    x == y && self.same_duration(a, other, b) && self.same_duration(c, other, d)
                }
                (DurationKind::MinOf(a, c), DurationKind::MinOf(b, d))
                | (DurationKind::MaxOf(a, c), DurationKind::MaxOf(b, d)) => {
                    self.same_duration(a, other, b) && self.same_duration(c, other, d)
                }
                _ => false,
            }
    }

    /// Evaluates all duration expressions for a query of this step and range (both 0 for an instant query): sets
    /// `range_ms`, `step_ms` and `offset_ms` where these were written as expressions. The error is upstream's text.
    pub fn resolve_durations(&mut self, step_ms: i64, query_range_ms: i64) -> Result<(), String> {
        let mut order = Vec::with_capacity(self.nodes.len());
        self.walk(self.root, |id, _| {
            order.push(id);
            true
        });
        let durations = &self.durations;
        let resolve = |slot: &mut i64, expr: Option<DurationId>, negative_allowed: bool| {
            if let Some(expr) = expr {
                *slot = evaluate_ms(durations, expr, step_ms, query_range_ms, negative_allowed)?;
            }
            Ok::<(), String>(())
        };
        for id in order {
            match &mut self.nodes[id.index()].kind {
                NodeKind::VectorSelector(s) => resolve(&mut s.offset_ms, s.original_offset_expr, true)?,
                NodeKind::MatrixSelector(s) => resolve(&mut s.range_ms, s.range_expr, false)?,
                NodeKind::Subquery(s) => {
                    resolve(&mut s.offset_ms, s.original_offset_expr, true)?;
                    resolve(&mut s.step_ms, s.step_expr, false)?;
                    resolve(&mut s.range_ms, s.range_expr, false)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A duration of minus zero prints without its sign, as upstream's does, so that it reads as zero.
fn same_number(a: f64, b: f64, duration: bool) -> bool {
    same_float(a, b) || duration && a == 0.0 && b == 0.0
}

fn same_float(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn same_option(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_float(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
