//! The weights of a task, for every set of sources that can be switched off.

use std::sync::Arc;

use super::features::{Columns, FEATURES, GROUPS, NO_INPUT_COLUMNS};
use super::features::{SourceMask, VARIANTS, WITHOUT_INPUT, variants};
use super::mixer::{Mixer, Weights};
use crate::{Error, Result};

/// Weights for each of [`variants`].
#[derive(Clone, Debug)]
pub struct MixtureWeights {
    mixers: [Arc<Mixer>; VARIANTS],
    /// That without an input, in the columns of [`NO_INPUT_COLUMNS`].
    plain: Arc<Mixer>,
}

impl MixtureWeights {
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
        let plain = mixers[WITHOUT_INPUT].weights().columns(&NO_INPUT_COLUMNS.map(|c| c as usize));
        Ok(Self { mixers, plain: Arc::new(Mixer::new(plain)) })
    }

    /// The same weights whatever is switched off.
    ///
    /// # Errors
    /// As [`MixtureWeights::new`].
    pub fn single(weights: &Weights) -> Result<Self> {
        Self::new(vec![weights.clone(); VARIANTS])
    }

    /// The mixer for what is switched off, in all columns: its own, else that without an input, else that of all
    /// sources.
    #[must_use]
    pub fn mixer(&self, without: SourceMask) -> &Arc<Mixer> {
        let own = variants().iter().position(|&v| v == without);
        &self.mixers[own.unwrap_or(if without.knows_input() { 0 } else { WITHOUT_INPUT })]
    }

    /// The same in the columns of [`Columns::of`].
    #[must_use]
    pub fn for_columns(&self, without: SourceMask) -> &Arc<Mixer> {
        match Columns::of(without) {
            Columns::All => self.mixer(without),
            Columns::NoInput => &self.plain,
        }
    }

    /// The weights, in the order of [`variants`].
    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.mixers.iter().map(|m| m.weights())
    }
}
