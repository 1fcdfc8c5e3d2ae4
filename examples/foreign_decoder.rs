//! How a decoder that tasc does not know uses an index: `cargo run --release -p tasc-core --example foreign_decoder`.
//!
//! Tokens are bytes here, and the "model" is a function that knows what it wants to say. What a real decoder keeps is
//! the order: open, start, then draft, verify and update until the output ends.
use std::path::Path;
use std::sync::Arc;

use tasc_core::corpus::{Store, StoreWriter, store};
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::Fingerprint;
use tasc_core::task::{BuildOptions, TaskIndex};
use tasc_core::text::PieceTokenizer;
use tasc_core::{Result, TokenId};

const EOS: TokenId = 256;
const PLACES: [&str; 6] = ["kitchen", "garden", "attic", "hall", "cellar", "garage"];

/// The tokenizer, for words of the input that the outputs copy.
struct Bytes;

impl PieceTokenizer for Bytes {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        Ok(pieces.iter().map(|piece| ids(piece)).collect())
    }
}

fn ids(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// One forward pass: the model's own token after the output so far, and after each drafted token behind it.
fn forward(input: &str, output: &[TokenId], draft: &[TokenId]) -> Vec<TokenId> {
    let words: Vec<&str> = input.split(' ').collect();
    let wanted = ids(&format!(r#"{{"room": "{}", "light": "{}"}}"#, words[3], words[1]));
    let next = |at: usize| wanted.get(at).copied().unwrap_or(EOS);
    (0..=draft.len()).map(|drafted| next(output.len() + drafted)).collect()
}

fn build(folder: &Path) -> Result<TaskIndex> {
    let tokenizer = Fingerprint([7; 32]); // a hash of your tokenizer: another one's index is then recognised
    let meta = store::StoreMeta { tokenizer: "bytes".into(), vocab_size: 257, eos_id: Some(EOS), ..Default::default() };
    let mut rows = StoreWriter::create(&folder.join("rows.store"), &tokenizer, meta)?;
    for (n, room) in PLACES.iter().enumerate() {
        let input = format!("turn {} the {room}", if n % 2 == 0 { "on" } else { "off" });
        let mut output = forward(&input, &[], &[0; 64]);
        output.truncate(1 + output.iter().take_while(|&&token| token != EOS).count());
        rows.push(&output, Some(&input), 1)?;
    }
    rows.finish()?;
    let options = BuildOptions { tokenizer: Some(&Bytes), ..BuildOptions::default() };
    TaskIndex::build(&Store::open(&folder.join("rows.store"))?, &folder.join("task.tasc"), &options, |_| Ok(()))
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for the example's files");
    let index = Arc::new(build(folder.path())?); // a decoder only opens one: TaskIndex::open(path)
    let drafter = Drafter::new(Some(index), DrafterOptions { tokenizer: Some(Arc::new(Bytes)), ..Default::default() })?;
    let costs = CostCurve::linear(0.02)?; // verifying k drafted tokens costs 1 + 0.02·k plain steps: measure yours
    for input in ["turn on the garden", "turn off the veranda"] {
        let mut request = drafter.start(&ids(input), Some(input))?;
        let (mut output, mut steps) = (Vec::new(), 0);
        while output.last() != Some(&EOS) {
            let draft = drafter.draft(&mut request, 32, &costs).tokens.clone();
            let own = forward(input, &output, &draft);
            let right = draft.iter().zip(&own).take_while(|(drafted, own)| drafted == own).count();
            let end = own[..=right].iter().position(|&token| token == EOS).unwrap_or(right);
            drafter.update(&mut request, &own[..=end]); // what was accepted, and the model's own token after it
            output.extend(&own[..=end]);
            steps += 1;
        }
        let text: String = output.iter().filter_map(|&id| char::from_u32(id).filter(|_| id != EOS)).collect();
        println!("{input:22} {text:40} {} tokens in {steps} steps", output.len());
    }
    Ok(())
}
