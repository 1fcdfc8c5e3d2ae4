//! Toy tokenizers, and a toy task: what several tests need.
#![allow(dead_code)] // no test needs all of it

use std::path::Path;

use tasc_core::corpus::{Store, StoreWriter, store::StoreMeta};
use tasc_core::format::Fingerprint;
use tasc_core::text::PieceTokenizer;
use tasc_core::{Result, TokenId};
use xxhash_rust::xxh3::xxh3_64;

/// How a toy tokenizer cuts a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toy {
    /// Every character is a token.
    Characters,
    /// Every two characters of a piece are one.
    Pairs,
    /// Every character is a token, a blank is one with what follows it, as in byte-level BPE.
    Glued,
    /// As `Glued`, two characters at a time.
    GluedPairs,
    /// Every word is a token, blanks are none.
    Words,
}

impl Toy {
    pub(crate) const ALL: [Self; 5] = [Self::Characters, Self::Pairs, Self::Glued, Self::GluedPairs, Self::Words];

    fn cut(self, text: &str) -> Vec<&str> {
        let len = |rest: &str| {
            let mut chars = rest.chars();
            let glued = matches!(self, Self::Glued | Self::GluedPairs) && rest.starts_with(' ');
            let pairs = matches!(self, Self::Pairs | Self::GluedPairs);
            let taken = chars.by_ref().take(1 + usize::from(glued) + usize::from(pairs)).count();
            rest.char_indices().nth(taken).map_or(rest.len(), |c| c.0)
        };
        let (mut rest, mut tokens) = (text, Vec::new());
        while !rest.is_empty() {
            let (token, after) = rest.split_at(len(rest));
            tokens.push(token);
            rest = after;
        }
        tokens
    }

    /// The ids of a text. ASCII characters keep their code; other tokens are numbered by a hash.
    pub(crate) fn ids(self, text: &str) -> Vec<TokenId> {
        if self == Self::Words {
            return text.split_whitespace().map(id).collect();
        }
        self.cut(text).into_iter().map(id).collect()
    }
}

pub(crate) fn id(token: &str) -> TokenId {
    match token.as_bytes() {
        [c] => TokenId::from(*c),
        bytes => 128 + (xxh3_64(bytes) % 30_011) as TokenId,
    }
}

impl PieceTokenizer for Toy {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        Ok(pieces.iter().map(|p| self.ids(p)).collect())
    }
}

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 33) as usize % n
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A row of a toy task.
pub(crate) type Row = (String, Vec<TokenId>, u64);

/// A row of a task with templates and slots, names that are new in every row among them: (input, output as a text).
pub(crate) fn request(random: &mut Random) -> (String, String) {
    let city = |r: &mut Random| {
        let known = ["boston", "denver", "new york", "san jose", "oslo", "北京", "東京都"];
        match r.below(3) {
            0 => {
                let part = |r: &mut Random| r.pick(&["ka", "lo", "mi", "tu", "re", "son", "vik", "par"]);
                (0..3).map(|_| part(r)).collect::<String>()
            }
            _ => r.pick(&known).to_owned(),
        }
    };
    let (a, b, day) = (city(random), city(random), random.pick(&["monday", "tuesday", "friday", "sunday"]));
    let please = random.pick(&["", "please ", "i want to ", "could you "]);
    match random.below(4) {
        0 => (format!("{please}find flights from {a} to {b}"), format!(" from=\"{a}\" to=\"{b}\";")),
        1 => (format!("{please}go to {b} from {a} on {day}"), format!(" from=\"{a}\" to=\"{b}\" day={day};")),
        2 => (format!("{please}what is the fare to {b}, {day}?"), format!(" fare to=\"{b}\" day={day};")),
        _ => (format!("{please}list airlines in {a}"), format!(" airlines city=\"{a}\" all=true;")),
    }
}

/// Rows of the toy task.
pub(crate) fn rows(toy: Toy, n: usize, seed: u64) -> Vec<Row> {
    let mut random = Random(seed);
    let row = |_| {
        let (input, output) = request(&mut random);
        (input, toy.ids(&output), 1)
    };
    (0..n).map(row).collect()
}

/// A store of rows.
pub(crate) fn store(path: &Path, rows: &[Row]) -> Store {
    let mut writer = StoreWriter::create(path, &Fingerprint([3; 32]), StoreMeta::default()).unwrap();
    rows.iter().for_each(|(input, output, weight)| writer.push(output, Some(input), *weight).unwrap());
    writer.finish().unwrap();
    Store::open(path).unwrap()
}
