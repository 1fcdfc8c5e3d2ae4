//! Speculative drafts for one task: the past outputs of a task are indexed, and the next tokens of a new output are
//! predicted from them. Nothing is trained, no model runs here, and no tokenizer is needed except for copying from
//! inputs. A caller's model verifies every draft, so that drafts change its speed and never its output.
//!
//! # Overview
//!
//! - A [`Store`] holds the task's rows: outputs as token ids, and optionally the inputs as text.
//! - A [`TaskIndex`] is built from a store. It holds the outputs as a compressed n-gram index (contexts of any length),
//!   the inputs as an inverted index, and what outputs copy from inputs. It is one file, opened by `mmap` in constant
//!   time and shared between processes.
//! - A [`Drafter`] reads an index. Each running output is a [`Request`]; [`Drafter::draft`] predicts its next tokens with
//!   a probability each, and cuts the [`Draft`] where the expected gain no longer pays the [`CostCurve`] of verification.
//!   [`Drafter::update`] takes the verified tokens and recalibrates.
//! - Evidence comes from several [`Source`]s (n-grams of the task, the running context, outputs of similar inputs, words
//!   copied from the input), combined by a log-linear mixture. Its weights are fitted on rows of the task itself.
//! - Finished rows are added to a running drafter by [`Drafter::serve`], and merged into the index by
//!   [`TaskIndex::compact`].
//!
//! Beside this, [`NgramTable`] holds exact counts of a store's n-grams, and [`MergePlan`] new tokens for a task's
//! vocabulary.
//!
//! # Example: index a task
//!
//! ```
//! use tasc_core::{BuildOptions, Fingerprint, Store, StoreMeta, StoreWriter, TaskIndex, TokenId};
//!
//! # fn main() -> tasc_core::Result<()> {
//! // In place of a tokenizer, every byte is a token, and 0 ends each output.
//! let ids = |text: &str| -> Vec<TokenId> { text.bytes().map(TokenId::from).chain([0]).collect() };
//! let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("rows.store");
//! let mut rows = StoreWriter::create(&path, &Fingerprint::default(), StoreMeta::default())?;
//! for (input, output) in [
//!     ("flights to rome", "to=rome;"),
//!     ("a flight to oslo", "to=oslo;"),
//!     ("flights to oslo please", "to=oslo;"),
//! ] {
//!     rows.push(&ids(output), Some(input), 1)?;
//! }
//! rows.finish()?;
//!
//! let store = Store::open(&path)?;
//! assert_eq!((store.num_documents(), store.num_inputs()), (2, 3), "equal outputs are one document");
//! let index = TaskIndex::build(&store, &folder.path().join("task.tasc"), &BuildOptions::default(), |_| Ok(()))?;
//! assert_eq!(index.meta().documents, 2);
//! assert_eq!(index.input(0)?.text, "flights to rome");
//! # Ok(())
//! # }
//! ```
//!
//! # Example: draft and verify
//!
//! Greedy verification keeps the drafted tokens that the model would have emitted itself, and one token more. Here the
//! model is a fixed output.
//!
//! ```
//! # use tasc_core::{BuildOptions, Fingerprint, Store, StoreMeta, StoreWriter, TaskIndex, TokenId};
//! use std::sync::Arc;
//!
//! use tasc_core::{CostCurve, Drafter, DrafterOptions};
//!
//! # fn main() -> tasc_core::Result<()> {
//! # let ids = |text: &str| -> Vec<TokenId> { text.bytes().map(TokenId::from).chain([0]).collect() };
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("rows.store");
//! # let mut rows = StoreWriter::create(&path, &Fingerprint::default(), StoreMeta::default())?;
//! # for output in ["to=rome;", "to=oslo;", "to=oslo;"] {
//! #     rows.push(&ids(output), None, 1)?;
//! # }
//! # rows.finish()?;
//! # let store = Store::open(&path)?;
//! # let index = TaskIndex::build(&store, &folder.path().join("task.tasc"), &BuildOptions::default(), |_| Ok(()))?;
//! let drafter = Drafter::new(Some(Arc::new(index)), DrafterOptions::default())?;
//! let costs = CostCurve::linear(0.02)?; // verifying one more token costs 2 % of a decoding step
//! let model = ids("to=oslo;");
//!
//! let mut request = drafter.start(&ids("flights to oslo"), None)?;
//! let (mut output, mut steps) = (Vec::new(), 0);
//! while output.len() < model.len() {
//!     let draft = drafter.draft(&mut request, 16, &costs);
//!     let left = &model[output.len()..];
//!     let accepted = draft.tokens.iter().zip(left).take_while(|(drafted, wanted)| drafted == wanted).count();
//!     let emitted = &left[..(accepted + 1).min(left.len())];
//!     drafter.update(&mut request, emitted);
//!     output.extend_from_slice(emitted);
//!     steps += 1;
//! }
//! assert_eq!(output, model);
//! assert!(steps <= 3, "9 tokens take {steps} steps");
//! # Ok(())
//! # }
//! ```
//!
//! # Example: rows that arrive while drafting
//!
//! ```
//! use tasc_core::{CostCurve, Drafter, DrafterOptions, OnlineRow, TokenId};
//!
//! # fn main() -> tasc_core::Result<()> {
//! let ids = |text: &str| -> Vec<TokenId> { text.bytes().map(TokenId::from).chain([0]).collect() };
//! let drafter = Drafter::new(None, DrafterOptions::default())?; // no index yet
//! let costs = CostCurve::linear(0.02)?;
//! let first = drafter.draft(&mut drafter.start(&[], None)?, 16, &costs).tokens.len();
//! assert_eq!(first, 0, "nothing is known");
//!
//! let row = OnlineRow { input: "flights to oslo".into(), output: ids("to=oslo;"), ..OnlineRow::default() };
//! drafter.serve(&vec![row; 3])?;
//! let mut request = drafter.start(&[], None)?;
//! assert!(ids("to=oslo;").starts_with(&drafter.draft(&mut request, 16, &costs).tokens));
//! assert!(!drafter.draft(&mut request, 16, &costs).tokens.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//!
//! - An index file takes about 14 bytes per token of the outputs (200,000 tokens of synthetic templates; the benchmark
//!   `draft_latency` prints it), and for each input its text and 4 bytes per distinct word or word pair. It is mapped:
//!   processes share its pages.
//! - Building takes about 28 bytes per token at the peak; with inputs see [`TaskIndex::build`].
//! - Online rows are bounded by [`DrafterOptions::served_bytes`], 64 MiB by default. [`Drafter::served_memory`] returns
//!   what they take.
//! - A [`Request`] holds its context, its input in token ids and the outputs that were retrieved for it.
//!
//! # Limits
//!
//! - One index holds at most 2³¹ − 1 positions (tokens plus documents) and 2³² − 2 rows.
//! - The id 2³² − 1 is reserved.
//! - Inputs are compared by their first 4,096 words. Their first 1,024 words can be copied, in pieces of at most 256
//!   bytes.
//! - Files are little-endian and read in place; the crate does not compile for big-endian machines.
//! - Files are never trusted: every access is checked and every loop is bounded, so that a damaged file leads to an error
//!   or to useless drafts, and not to a panic. [`TaskIndex::verify`] compares the checksums and proves that all offsets,
//!   mappings and walks are as they must be.
//!
//! # Modules
//!
//! The types above are the interface. The modules are public for the benchmarks, the tests and the Python binding alone.
//! An import goes from a later module to an earlier one: `format` (containers), `text` (words and pieces of inputs),
//! `corpus` (rows), `index` (arrays and queries), `mixture` (evidence to one distribution), `online` (what is learned
//! while drafting), `draft` (sources, length) and `fit` (weights), `task` (the index file); `count` and `merge` stand
//! beside `index`. `tests/layout.rs` checks this.

#[doc(hidden)]
pub mod activations;
#[doc(hidden)]
pub mod corpus;
#[doc(hidden)]
pub mod count;
#[doc(hidden)]
pub mod draft;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod fit;
#[doc(hidden)]
pub mod fork;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod index;
#[doc(hidden)]
pub mod merge;
#[doc(hidden)]
pub mod mixture;
#[doc(hidden)]
pub mod online;
#[doc(hidden)]
pub mod pool;
#[doc(hidden)]
pub mod task;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod token;

pub use activations::{ACTIVATION_LEVELS, round_activations};
pub use corpus::{OnlineRow, Store, StoreMeta, StoreWriter};
pub use count::NgramTable;
pub use draft::{CostCurve, Draft, Drafter, DrafterOptions, Request};
pub use error::{Error, Result};
pub use format::Fingerprint;
pub use merge::{MergePlan, Segmenter};
pub use mixture::{Source, SourceMask, TaskData};
pub use task::{BuildOptions, IndexMeta, TaskIndex};
pub use text::PieceTokenizer;
pub use token::TokenId;
