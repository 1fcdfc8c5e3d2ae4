//! The sources of evidence, and sets of them that are switched off.

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// n-grams of the task's outputs.
    Task,
    /// The running context.
    Context,
    /// Outputs of similar inputs.
    Retrieved,
    /// n-grams joined with what waits to be copied.
    Coverage,
    /// Words of the input.
    Copy,
}

impl Source {
    /// All of them; a draft's source codes count in this order.
    pub const ALL: [Self; 5] = [Self::Task, Self::Context, Self::Retrieved, Self::Coverage, Self::Copy];

    /// Its name in reports and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Context => "context",
            Self::Retrieved => "retrieved",
            Self::Coverage => "coverage",
            Self::Copy => "copy",
        }
    }

    /// Whether it is silent in a request whose input is not known.
    #[must_use]
    pub fn needs_input(self) -> bool {
        matches!(self, Self::Retrieved | Self::Coverage | Self::Copy)
    }

    /// Its code in a draft.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Sources that are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceMask(u8);

impl SourceMask {
    /// None of them.
    pub const NOTHING: Self = Self(0);

    /// The sources that need an input.
    #[must_use]
    pub fn inputs() -> Self {
        Source::ALL.into_iter().filter(|s| s.needs_input()).collect()
    }

    /// Whether any source is left that knows the input.
    #[must_use]
    pub fn knows_input(self) -> bool {
        Self::inputs().and(self) != self
    }

    /// Whether a source is switched off.
    #[must_use]
    pub fn has(self, source: Source) -> bool {
        self.0 >> source.code() & 1 == 1
    }

    /// What reports call it.
    #[must_use]
    pub fn name(self) -> String {
        if self == Self::inputs() {
            return "inputs".into();
        }
        let names: Vec<&str> = Source::ALL.into_iter().filter(|&s| self.has(s)).map(Source::name).collect();
        names.join("+")
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Source> for SourceMask {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Self {
        Self(sources.into_iter().fold(0, |bits, s| bits | 1 << s.code()))
    }
}

/// Number of [`variants`], and which of them is without an input.
pub const VARIANTS: usize = 2 + Source::ALL.len();
pub(super) const WITHOUT_INPUT: usize = 1;

/// Every set of sources that weights are kept for: all, without an input, and without each.
#[must_use]
pub fn variants() -> [SourceMask; VARIANTS] {
    std::array::from_fn(|k| match k.checked_sub(2) {
        None if k == WITHOUT_INPUT => SourceMask::inputs(),
        None => SourceMask::NOTHING,
        Some(source) => SourceMask::from_iter([Source::ALL[source]]),
    })
}
