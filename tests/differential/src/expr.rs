//! A generated query as a tree that can be printed and made smaller.

use std::fmt;

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Scalar,
    /// An instant vector.
    Vector,
    /// A range vector.
    Matrix,
    /// A string.
    String,
}

/// A part of an expression's text.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Text that has to stay.
    Text(String),
    /// Text without which the expression still has its type: a matcher, a modifier, a clause.
    Optional(String),
    /// A sub-expression.
    Child(Expr),
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Piece::Text(text.to_owned())
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Piece::Text(text)
    }
}

impl From<Expr> for Piece {
    fn from(child: Expr) -> Self {
        Piece::Child(child)
    }
}

/// Text that the shrinker may take away.
pub fn optional(text: impl Into<String>) -> Piece {
    Piece::Optional(text.into())
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its type.
    pub kind: Kind,
    /// Its text and its children.
    pub pieces: Vec<Piece>,
}

/// An [`Expr`] of a kind from pieces.
macro_rules! expr {
    ($kind:ident; $($piece:expr),* $(,)?) => {
        $crate::expr::Expr {
            kind: $crate::expr::Kind::$kind,
            pieces: vec![$($crate::expr::Piece::from($piece)),*],
        }
    };
}
pub(crate) use expr;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) | Piece::Optional(text) => f.write_str(text)?,
                Piece::Child(child) => child.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl Expr {
    /// Expressions that are one step smaller, the boldest steps first.
    pub fn smaller(&self) -> Vec<Expr> {
        let mut all = Vec::new();
        self.descendants(&mut |child| {
            if matches!(child.kind, Kind::Scalar | Kind::Vector) {
                all.push(child.clone());
            }
        });
        all.sort_by_key(|e| e.to_string().len());
        all.extend(self.reduced());
        all
    }

    fn descendants(&self, visit: &mut impl FnMut(&Expr)) {
        for piece in &self.pieces {
            if let Piece::Child(child) = piece {
                visit(child);
                child.descendants(visit);
            }
        }
    }

    /// This expression with one part inside it made smaller; the type stays.
    fn reduced(&self) -> Vec<Expr> {
        let mut all = Vec::new();
        for (i, piece) in self.pieces.iter().enumerate() {
            let with = |piece: Option<Piece>| {
                let mut pieces = self.pieces.clone();
                match piece {
                    Some(piece) => pieces[i] = piece,
                    None => drop(pieces.remove(i)),
                }
                Expr { kind: self.kind, pieces }
            };
            match piece {
                Piece::Text(_) => {}
                Piece::Optional(_) => all.push(with(None)),
                Piece::Child(child) => {
                    let mut inner = Vec::new();
                    child.descendants(&mut |d| {
                        if d.kind == child.kind {
                            inner.push(d.clone());
                        }
                    });
                    inner.sort_by_key(|e| e.to_string().len());
                    if child.kind == Kind::Scalar && child.to_string() != "1" {
                        inner.push(expr!(Scalar; "1"));
                    }
                    inner.extend(child.reduced());
                    all.extend(inner.into_iter().map(|e| with(Some(e.into()))));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_gets_smaller_step_by_step() {
        let inner = expr!(Vector; "up", optional("{a=\"b\"}"));
        let whole = expr!(Vector; "abs(", expr!(Vector; "-", inner), ")");
        assert_eq!(whole.to_string(), "abs(-up{a=\"b\"})");
        let smaller: Vec<String> = whole.smaller().iter().map(Expr::to_string).collect();
        assert_eq!(smaller, ["up{a=\"b\"}", "-up{a=\"b\"}", "abs(up{a=\"b\"})", "abs(-up)"]);
    }
}
