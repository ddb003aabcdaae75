//! Binary operators on floats.

use crate::parser::BinaryOp;

/// The value of an arithmetic operator.
#[inline(always)]
pub(crate) fn arithmetic(op: BinaryOp, l: f64, r: f64) -> f64 {
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Atan2 => l.atan2(r),
        _ => unreachable!("only called for arithmetic operators"),
    }
}

/// The verdict of a comparison operator.
#[inline(always)]
pub(crate) fn comparison(op: BinaryOp, l: f64, r: f64) -> bool {
    match op {
        BinaryOp::Eq => l == r,
        BinaryOp::Ne => l != r,
        BinaryOp::Lt => l < r,
        BinaryOp::Le => l <= r,
        BinaryOp::Gt => l > r,
        BinaryOp::Ge => l >= r,
        _ => unreachable!("only called for comparison operators"),
    }
}

/// An operator between two scalars.
pub(crate) fn scalars(op: BinaryOp, l: f64, r: f64) -> f64 {
    if op.is_comparison() { f64::from(u8::from(comparison(op, l, r))) } else { arithmetic(op, l, r) }
}
