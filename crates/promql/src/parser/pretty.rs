//! Pretty printing: one line where it fits in 100 characters, else broken at operators and parentheses.

use super::ast::{Ast, ExprId, NodeKind};
use super::print::{aggregate_text, operator_text};

/// An expression longer than this is broken into lines.
const LINE_CHARACTERS_MAX: usize = 100;

/// Indentation stops growing here, so that the output of a chain of many thousand operators stays in proportion.
const INDENT_LEVELS_MAX: usize = 200;

/// What is still to be printed; the last one first.
enum Piece<'a> {
    Expr(ExprId, usize),
    Indent(usize),
    Text(std::borrow::Cow<'a, str>),
}

impl Ast {
    /// The text of the whole expression, broken into lines as upstream's `format_query` does it.
    pub fn pretty(&self) -> String {
        // The text of an expression is part of that of its parent, so printing once measures them all.
        let mut flat = String::new();
        let mut ends = vec![0usize; self.len()];
        let mut lengths = vec![0usize; self.len()];
        self.write_expr(self.root(), &mut flat, |id, text| ends[id.index()] = text.len());
        self.measure(&flat, &ends, &mut lengths);

        let text = |id: ExprId| &flat[ends[id.index()] - lengths[id.index()]..ends[id.index()]];
        let mut out = String::new();
        // Right after a sign: the operand's own indentation is dropped.
        let mut trim = false;
        let mut pieces = vec![Piece::Expr(self.root(), 0)];
        while let Some(piece) = pieces.pop() {
            match piece {
                Piece::Text(text) => {
                    out.push_str(&text);
                    trim = false;
                }
                Piece::Indent(level) => {
                    if !trim {
                        out.extend(std::iter::repeat_n("  ", level.min(INDENT_LEVELS_MAX)));
                    }
                }
                Piece::Expr(id, level) => {
                    let splits = lengths[id.index()] > LINE_CHARACTERS_MAX;
                    match self.kind(id) {
                        NodeKind::Unary { op, expr } => {
                            if !trim {
                                out.extend(std::iter::repeat_n("  ", level.min(INDENT_LEVELS_MAX)));
                            }
                            out.push_str(op.as_str());
                            trim = true;
                            pieces.push(Piece::Expr(*expr, level));
                        }
                        NodeKind::Subquery(_) if !splits => {
                            // Upstream does not indent these.
                            pieces.push(Piece::Text(text(id).into()));
                        }
                        kind if splits && self.breaks(kind, level, &mut pieces) => {}
                        _ => {
                            pieces.push(Piece::Text(text(id).into()));
                            pieces.push(Piece::Indent(level));
                        }
                    }
                }
            }
        }
        out
    }

    /// Puts the lines of an expression that is too long on the list; false when it cannot be broken.
    fn breaks<'a>(&'a self, kind: &'a NodeKind, level: usize, pieces: &mut Vec<Piece<'a>>) -> bool {
        let first = pieces.len();
        match kind {
            NodeKind::Aggregate(aggregate) => {
                pieces.push(Piece::Indent(level));
                pieces.push(Piece::Text((aggregate_text(aggregate) + "(\n").into()));
                if let Some(param) = aggregate.param {
                    pieces.push(Piece::Expr(param, level + 1));
                    pieces.push(Piece::Text(",\n".into()));
                }
                pieces.push(Piece::Expr(aggregate.expr, level + 1));
                close(level, pieces);
            }
            NodeKind::Binary(binary) => {
                pieces.push(Piece::Expr(binary.lhs, level + 1));
                pieces.push(Piece::Text("\n".into()));
                pieces.push(Piece::Indent(level));
                pieces.push(Piece::Text((operator_text(binary) + "\n").into()));
                pieces.push(Piece::Expr(binary.rhs, level + 1));
            }
            NodeKind::Call(call) => {
                pieces.push(Piece::Indent(level));
                pieces.push(Piece::Text(format!("{}(\n", call.func.name).into()));
                for (i, arg) in call.args.iter().enumerate() {
                    if i > 0 {
                        pieces.push(Piece::Text(",\n".into()));
                    }
                    pieces.push(Piece::Expr(*arg, level + 1));
                }
                close(level, pieces);
            }
            NodeKind::Paren(inner) => {
                pieces.push(Piece::Indent(level));
                pieces.push(Piece::Text("(\n".into()));
                pieces.push(Piece::Expr(*inner, level + 1));
                close(level, pieces);
            }
            NodeKind::Subquery(subquery) => {
                pieces.push(Piece::Expr(subquery.expr, level));
                pieces.push(Piece::Text(self.subquery_suffix(subquery).into()));
            }
            _ => return false,
        }
        pieces[first..].reverse();
        true
    }

    /// Lengths of the expressions' texts, children first.
    fn measure(&self, flat: &str, ends: &[usize], lengths: &mut [usize]) {
        for id in self.ids() {
            let i = id.index();
            if ends[i] == 0 {
                continue;
            }
            // An expression's text begins with its first child's, but for what stands before that.
            lengths[i] = match self.kind(id) {
                NodeKind::Binary(b) => ends[i] - (ends[b.lhs.index()] - lengths[b.lhs.index()]),
                NodeKind::Subquery(s) => ends[i] - (ends[s.expr.index()] - lengths[s.expr.index()]),
                NodeKind::Paren(inner) => ends[i] - (ends[inner.index()] - lengths[inner.index()]) + 1,
                NodeKind::Unary { expr, .. } => ends[i] - (ends[expr.index()] - lengths[expr.index()]) + 1,
                NodeKind::Aggregate(a) => {
                    let first = a.param.unwrap_or(a.expr).index();
                    ends[i] - (ends[first] - lengths[first]) + aggregate_text(a).len() + 1
                }
                NodeKind::Call(call) => {
                    let before = call.func.name.len() + 1;
                    match call.args.first() {
                        Some(first) => ends[i] - (ends[first.index()] - lengths[first.index()]) + before,
                        None => before + 1,
                    }
                }
                NodeKind::Number { .. }
                | NodeKind::String(_)
                | NodeKind::VectorSelector(_)
                | NodeKind::MatrixSelector(_) => self.to_text(id).len(),
            };
            debug_assert!(lengths[i] <= ends[i] && ends[i] <= flat.len());
        }
    }
}

fn close(level: usize, pieces: &mut Vec<Piece<'_>>) {
    pieces.push(Piece::Text("\n".into()));
    pieces.push(Piece::Indent(level));
    pieces.push(Piece::Text(")".into()));
}
