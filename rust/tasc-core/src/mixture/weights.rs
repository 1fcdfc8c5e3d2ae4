//! The weights of a task: with every source, without each of them, and without an input.

use std::sync::Arc;

use super::features::{Columns, FEATURES, GROUPS, PLAIN};
use super::mixer::{Mixer, Weights};
use crate::{Error, Result};

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

    /// Its code in a draft.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Sources that are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(u8);

impl Without {
    /// None of them.
    pub const NOTHING: Self = Self(0);

    /// What needs an input.
    #[must_use]
    pub fn inputs() -> Self {
        [Source::Retrieved, Source::Coverage, Source::Copy].into_iter().collect()
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

impl FromIterator<Source> for Without {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Self {
        Self(sources.into_iter().fold(0, |bits, s| bits | 1 << s.code()))
    }
}

/// Number of [`variants`], and which of them is without an input.
pub const VARIANTS: usize = 2 + Source::ALL.len();
const WITHOUT_INPUT: usize = 1;

/// Every set of sources that weights are kept for: all, without an input, and without each.
#[must_use]
pub fn variants() -> [Without; VARIANTS] {
    let [a, b, c, d, e] = Source::ALL.map(|s| Without::from_iter([s]));
    [Without::NOTHING, Without::inputs(), a, b, c, d, e]
}

/// Weights for each of [`variants`].
#[derive(Clone, Debug)]
pub struct Mixtures {
    mixers: [Arc<Mixer>; VARIANTS],
    /// That without an input, in the columns of [`PLAIN`].
    plain: Arc<Mixer>,
}

impl Mixtures {
    /// `tables` belong to [`variants`] in order.
    ///
    /// # Errors
    /// [`Error::Weights`] when their number, features or groups are others than the sources give.
    pub fn new(tables: Vec<Weights>) -> Result<Self> {
        for w in &tables {
            if w.features() != FEATURES || w.groups() != GROUPS {
                let why = format!(
                    "a table has {} features and the groups {:?}; these sources need {FEATURES} and {GROUPS:?}",
                    w.features(),
                    w.groups()
                );
                return Err(Error::Weights { why });
            }
        }
        let given = tables.len();
        let tables: [Weights; VARIANTS] = tables
            .try_into()
            .map_err(|_| Error::Weights { why: format!("there are {given} tables; give {VARIANTS}") })?;
        let mixers = tables.map(|w| Arc::new(Mixer::new(w)));
        let plain = mixers[WITHOUT_INPUT].weights().columns(&PLAIN.map(|c| c as usize));
        Ok(Self { mixers, plain: Arc::new(Mixer::new(plain)) })
    }

    /// The same weights whatever is switched off.
    ///
    /// # Errors
    /// As [`Mixtures::new`].
    pub fn single(weights: &Weights) -> Result<Self> {
        Self::new(vec![weights.clone(); VARIANTS])
    }

    /// The mixer for what is switched off, in all columns: its own, else that without an input, else that of all
    /// sources.
    #[must_use]
    pub fn mixer(&self, without: Without) -> &Arc<Mixer> {
        let own = variants().iter().position(|&v| v == without);
        &self.mixers[own.unwrap_or(if without.knows_input() { 0 } else { WITHOUT_INPUT })]
    }

    /// The same in the columns of [`Columns::of`].
    #[must_use]
    pub fn narrow(&self, without: Without) -> &Arc<Mixer> {
        match Columns::of(without) {
            Columns::All => self.mixer(without),
            Columns::Plain => &self.plain,
        }
    }

    /// The weights, in the order of [`variants`].
    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.mixers.iter().map(|m| m.weights())
    }
}
