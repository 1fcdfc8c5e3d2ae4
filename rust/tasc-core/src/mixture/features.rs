//! The sources of evidence and what the mixer sees of them: names, columns of a feature row, states that pick weights.
//!
//! A new source appends a [`Source`], its [`Distribution`] and its [`Column`]s here: weight tables of fewer columns are
//! padded when they are read.

use crate::TokenId;

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
    pub const fn needs_input(self) -> bool {
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

/// A distribution over the next token that a source gives. Each has two columns: the log-probability of a candidate, and
/// whether the distribution does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// By the task's n-grams.
    Task,
    /// By the retrieved outputs.
    Retrieved,
    /// By the running context.
    Context,
    /// By coverage.
    Coverage,
    /// By the word that waits next to be copied.
    Ahead,
}

impl Distribution {
    /// All of them, in the order in which they name candidates.
    pub const ALL: [Self; 5] = [Self::Task, Self::Retrieved, Self::Context, Self::Coverage, Self::Ahead];

    /// The source that gives it.
    #[must_use]
    pub const fn source(self) -> Source {
        match self {
            Self::Task => Source::Task,
            Self::Retrieved => Source::Retrieved,
            Self::Context => Source::Context,
            Self::Coverage | Self::Ahead => Source::Coverage,
        }
    }

    /// Its columns: log-probability, not named.
    #[must_use]
    pub const fn columns(self) -> [Column; 2] {
        match self {
            Self::Task => [Column::Task, Column::NoTask],
            Self::Retrieved => [Column::Retrieved, Column::NoRetrieved],
            Self::Context => [Column::Context, Column::NoContext],
            Self::Coverage => [Column::Coverage, Column::NoCoverage],
            Self::Ahead => [Column::Ahead, Column::NoAhead],
        }
    }
}

/// Columns of a feature row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// Log-probability by the task's n-grams.
    Task,
    /// … by the retrieved outputs.
    Retrieved,
    /// … by the running context.
    Context,
    /// … by coverage.
    Coverage,
    /// … by the word that waits next.
    Ahead,
    /// The task's n-grams do not name it.
    NoTask,
    /// The retrieved outputs do not name it.
    NoRetrieved,
    /// The context does not name it.
    NoContext,
    /// Coverage does not name it.
    NoCoverage,
    /// The word that waits next does not name it.
    NoAhead,
    /// The last row: "something else".
    Else,
    /// A copy may begin with it.
    Starts,
    /// Log-probability of that by the word to the left.
    Pointer,
    /// Log of how often that word is copied.
    Rate,
    /// That word is next in order.
    InOrder,
    /// A copy with its blank may begin with it.
    Spaced,
    /// It goes on with a word half copied.
    Inside,
    /// Log of one more than the tokens copied so far, inside a word.
    InsideLength,
    /// It goes on with the next word.
    Between,
    /// Log of one more than the tokens copied so far, between words.
    BetweenLength,
    /// Log-odds that a copy goes on from this word to the next.
    GoesOn,
    /// It leaves a word half copied.
    Leaves,
    /// Log-probability that a copy ends before the next word, for what does not go on.
    Ends,
    /// Log-probability that a copy begins here, for what begins one.
    Begins,
    /// Log-probability that none begins here, for what does not.
    BeginsNot,
    /// Log of how often this token is not copied where it occurs, for what is no copy.
    Foreign,
}

/// Features per candidate.
pub const FEATURES: usize = Column::Foreign as usize + 1;

/// What is left of a row without an input, where all other columns are 0. In this order a score has the bits that it
/// has with all columns.
pub const NO_INPUT_COLUMNS: [Column; 5] =
    [Column::Context, Column::Else, Column::Task, Column::NoTask, Column::NoContext];

// both columns of every distribution that needs no input, and `Else`
const _: () = {
    let (mut columns, mut k) = (1, 0);
    while k < Distribution::ALL.len() {
        columns += if Distribution::ALL[k].source().needs_input() { 0 } else { 2 };
        k += 1;
    }
    assert!(columns == NO_INPUT_COLUMNS.len(), "add the columns of the source that needs no input to NO_INPUT_COLUMNS");
};

/// Which columns the rows have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Every [`Column`] in order.
    #[default]
    All,
    /// Columns of [`NO_INPUT_COLUMNS`].
    NoInput,
}

impl Columns {
    /// The fewest that say everything when these sources are switched off.
    #[must_use]
    pub fn of(without: SourceMask) -> Self {
        if without.knows_input() { Self::All } else { Self::NoInput }
    }
}

/// States of each group: longest match in the task, in the context, in the retrieved outputs; the copy under way; the
/// similarity of the nearest row; the mismatch rates of task and retrieved outputs; whether the n-grams are certain.
pub const GROUPS: [usize; 8] = [8, 8, 8, 5, 6, 6, 6, 2];

/// The candidate "the output ends here without a token".
pub const END: TokenId = TokenId::MAX;
