//! A small task, and random calls of the core's `Drafter` on it with what they returned.
#![allow(dead_code)] // no test needs all of it

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tasc_core::text::PieceTokenizer;
use tasc_core::{
    BuildOptions, CostCurve, Drafter, DrafterOptions, Fingerprint, OnlineRow, Request, Result, Store, StoreMeta,
    StoreWriter, TaskIndex, TokenId,
};

/// The token that ends an output. The others are bytes.
pub(crate) const EOS: TokenId = 256;

/// Ids of the task are below this.
pub(crate) const VOCAB: u32 = 257;

const PLACES: [&str; 8] = ["kitchen", "garden", "attic", "hall", "cellar", "garage", "loft", "long corridor"];

/// Numbers that look random, the same ones for a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % (limit as u64)).unwrap()
    }

    /// Whether something that happens once in `times` happens.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

struct Bytes;

impl PieceTokenizer for Bytes {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        Ok(pieces.iter().map(|piece| ids(piece)).collect())
    }
}

pub(crate) fn ids(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// A request of the task, and its output with the end token.
pub(crate) fn row(random: &mut Random) -> (String, Vec<TokenId>) {
    let place = PLACES[random.below(PLACES.len())];
    let switch = if random.once_in(2) { "on" } else { "off" };
    let level = random.below(100);
    let input = format!("turn {switch} the {place} to {level}");
    let output = format!(r#"{{"room": "{place}", "light": "{switch}", "level": {level}}}"#);
    (input, ids(&output).into_iter().chain([EOS]).collect())
}

/// Builds the index of 60 rows in a folder.
pub(crate) fn build(folder: &Path) -> PathBuf {
    let meta = StoreMeta { tokenizer: "bytes".into(), vocab_size: VOCAB, eos_id: Some(EOS), ..Default::default() };
    let mut rows = StoreWriter::create(&folder.join("rows.store"), &Fingerprint([7; 32]), meta).unwrap();
    let mut random = Random(1);
    for _ in 0..60 {
        let (input, output) = row(&mut random);
        rows.push(&output, Some(&input), 1).unwrap();
    }
    rows.finish().unwrap();
    let (store, path) = (Store::open(&folder.join("rows.store")).unwrap(), folder.join("task.tasc"));
    let options = BuildOptions { tokenizer: Some(&Bytes), ..BuildOptions::default() };
    TaskIndex::build(&store, &path, &options, |_| Ok(())).unwrap();
    path
}

/// A call of the interface. Requests are numbered from 0.
#[derive(Debug)]
pub(crate) enum Call {
    Start { prompt: Vec<TokenId>, input: Option<String> },
    Draft { request: usize, max_tokens: usize, costs: Option<Vec<f64>>, tokens: Vec<TokenId>, probabilities: Vec<f32> },
    Update { request: usize, emitted: Vec<TokenId> },
    Finish { request: usize, learn: bool },
}

/// A request of the recording.
struct Running {
    number: usize,
    request: Request,
    input: String,
    wanted: Vec<TokenId>,
    output: Vec<TokenId>,
}

/// Records `count` random calls: of up to four requests at a time, whose model mostly emits a row of the task.
pub(crate) fn record(index: &Path, seed: u64, count: usize, fixed: bool, learns: bool) -> Vec<Call> {
    let index = TaskIndex::open(index).unwrap();
    let options = DrafterOptions { fixed, ..DrafterOptions::default() };
    let drafter = Drafter::new(Some(Arc::new(index)), options).unwrap();
    let (mut random, mut calls, mut running, mut started) = (Random(seed), Vec::new(), Vec::<Running>::new(), 0);
    while calls.len() < count {
        if running.is_empty() || running.len() < 4 && random.once_in(12) {
            let (input, wanted) = row(&mut random);
            let (prompt, text) = (ids(&input), (!random.once_in(4)).then(|| input.clone()));
            let request = drafter.start(&prompt, text.as_deref()).unwrap();
            let kept = text.clone().unwrap_or_default();
            running.push(Running { number: started, request, input: kept, wanted, output: Vec::new() });
            started += 1;
            calls.push(Call::Start { prompt, input: text });
            continue;
        }
        let at = random.below(running.len());
        let ended = running[at].output.len() >= running[at].wanted.len();
        if ended || random.once_in(60) {
            let Running { number, input, output, .. } = running.swap_remove(at);
            let learn = learns && ended && output.contains(&EOS);
            if learn {
                let end = output.iter().position(|&id| id == EOS).unwrap() + 1;
                let row = OnlineRow { input, output: output[..end].to_vec(), ..OnlineRow::default() };
                drafter.serve(&[row]).unwrap();
            }
            calls.push(Call::Finish { request: number, learn });
            continue;
        }
        let Running { number, request, wanted, output, .. } = &mut running[at];
        let max_tokens = random.below(40);
        let costs = match random.below(3) {
            0 => None,
            1 => Some((0..=random.below(33)).map(|k| 1.0 + 0.03 * k as f64).collect()),
            _ => Some(vec![1.0, 1.3, 1.7, 2.4, 4.7, 8.2]),
        };
        let curve = costs.clone().map_or_else(|| CostCurve::linear(0.02), CostCurve::new).unwrap();
        let draft = drafter.draft(request, max_tokens, &curve).clone();
        let left = &wanted[output.len()..];
        let right = draft.tokens.iter().zip(left).take_while(|(a, b)| a == b).count();
        let mut emitted = left[..(right + 1).min(left.len())].to_vec();
        if let Some(last) = emitted.last_mut()
            && random.once_in(10)
        {
            *last = TokenId::try_from(random.below(256)).unwrap();
        }
        drafter.update(request, &emitted);
        output.extend(&emitted);
        let (tokens, probabilities) = (draft.tokens, draft.probabilities);
        calls.push(Call::Draft { request: *number, max_tokens, costs, tokens, probabilities });
        calls.push(Call::Update { request: *number, emitted });
    }
    calls.extend(running.iter().map(|left| Call::Finish { request: left.number, learn: false }));
    calls
}

/// The calls as text, for `replay.c`: one a line, every list after its length.
pub(crate) fn write(calls: &[Call]) -> String {
    fn list<T: std::fmt::Display>(text: &mut String, items: &[T]) {
        write!(text, " {}", items.len()).unwrap();
        items.iter().for_each(|item| write!(text, " {item}").unwrap());
    }
    let mut text = String::new();
    for call in calls {
        match call {
            Call::Start { prompt, input } => {
                text.push_str("start");
                list(&mut text, prompt);
                list(&mut text, input.as_deref().unwrap_or_default().as_bytes());
            }
            Call::Draft { request, max_tokens, costs, tokens, probabilities } => {
                write!(text, "draft {request} {max_tokens}").unwrap();
                list(&mut text, costs.as_deref().unwrap_or_default());
                list(&mut text, tokens);
                list(&mut text, probabilities);
            }
            Call::Update { request, emitted } => {
                write!(text, "update {request}").unwrap();
                list(&mut text, emitted);
            }
            Call::Finish { request, learn } => write!(text, "finish {request} {}", u8::from(*learn)).unwrap(),
        }
        text.push('\n');
    }
    text
}
