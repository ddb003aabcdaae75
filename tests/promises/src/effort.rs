//! How much a test does.

/// `make test` wants minutes for everything, `make soak` wants hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few rounds.
    Short,
    /// `CHRONOLITH_SOAK=FACTOR`: so many times as much.
    Soak(usize),
}

impl Effort {
    /// What the environment asks for.
    ///
    /// # Panics
    /// When `CHRONOLITH_SOAK` is no number.
    pub fn asked() -> Self {
        match std::env::var("CHRONOLITH_SOAK") {
            Err(_) => Effort::Short,
            Ok(factor) => Effort::Soak(factor.parse().expect("CHRONOLITH_SOAK is a number")),
        }
    }

    /// `short` rounds, or so many times more.
    pub fn rounds(self, short: usize) -> usize {
        match self {
            Effort::Short => short,
            Effort::Soak(factor) => short * factor,
        }
    }
}
