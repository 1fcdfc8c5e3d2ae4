//! Weights that serve any task, fitted on generated tasks by `benches/python/fit_general_weights.py --write`, which writes
//! `general_weights.json`. They are the prior of the weights fitted to a task, and serve tasks without inputs or with few
//! rows.
//!
//! Columns of a table: [`super::features::Column`] in order. Rows: the common one, then an offset for each state of each
//! of [`super::features::GROUPS`]: longest match in the task (0, 1, 2–3, 4–7, 8–15, 16–31, 32–63, more tokens), in the
//! context, in the retrieved outputs; copy under way (nothing to copy, none, between words, inside one, longer inside);
//! similarity of the nearest row (none, then up to 0.3, 0.5, 0.7, 0.9, more); mismatch rate of the task's matches, of the
//! retrieved ones (six degrees); whether task and retrieved outputs agree.

use serde::Deserialize;

use super::features::{FEATURES, GROUPS};
use super::features::{SourceMask, variants};
use super::mixer::Weights;
use super::weights::MixtureWeights;
use crate::{Error, Result};

/// The file of the general weights.
#[derive(Deserialize)]
struct GeneralTables {
    /// States of each group.
    groups: Vec<usize>,
    /// With the input known.
    all_sources: Vec<Vec<f32>>,
    without_input: Vec<Vec<f32>>,
}

/// The general weights: those without an input, and for any single source switched off those of all sources.
///
/// # Errors
/// Never for the file that is compiled in; the check is the same as for weights from outside.
pub fn weights() -> Result<MixtureWeights> {
    let unusable = |why: String| Error::Weights { why };
    let tables: GeneralTables =
        serde_json::from_str(include_str!("general_weights.json")).map_err(|e| unusable(e.to_string()))?;
    let padded = |rows: &[Vec<f32>]| {
        let features = rows.first().map_or(0, Vec::len);
        let given = Weights::new(features, tables.groups.clone(), rows.concat())?;
        given.padded(FEATURES, &GROUPS).ok_or_else(|| unusable("the general weights are for other groups".into()))
    };
    let (full, plain) = (padded(&tables.all_sources)?, padded(&tables.without_input)?);
    let table = |mask| if mask == SourceMask::inputs() { plain.clone() } else { full.clone() };
    MixtureWeights::new(variants().into_iter().map(table).collect())
}
