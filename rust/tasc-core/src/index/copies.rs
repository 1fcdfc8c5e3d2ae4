//! What a task's rows teach about copying: which words are copied, from where, and what comes when nothing is left.

use rustc_hash::FxHashMap;

use super::conditional::{ConditionalArrays, ConditionalBuilder, Followers};
use crate::TokenId;
use crate::format::sections;
use crate::text::{CopyState, SourceText};

/// The longest tail of an output that a condition looks at.
pub const TAIL: usize = 9;

/// Tails, in tokens, that the left word of a copied one is counted after.
const POINTER_TAILS: [usize; 2] = [9, 4];

/// Tails, in tokens, that coverage n-grams join with what still waits.
const COVERAGE_TAILS: [usize; 3] = [8, 4, 2];

/// A word that is copied more often than this is waited for.
const COPY_RATE_THRESHOLD: f32 = 0.4;

/// Tails, in tokens, that are joined with the word that waits next, then with the word to its left.
const AHEAD_TAILS: [usize; 2] = [8, 4];

/// Tokens from this id on are not counted one by one: no vocabulary is as large, and the counts are kept by id.
const MAX_COUNTED_ID: TokenId = 1 << 22;

/// With more rows than this, conditions that held once are not kept.
const MANY_ROWS: usize = 1000;

/// Stands for several tokens that followed a tail.
const AMBIGUOUS: TokenId = TokenId::MAX;

/// Follower of a tail after which no copy began.
const NO_COPY: u32 = u32::MAX;

/// Kinds of conditions, so that they do not meet in one table.
const POINTER: u64 = 0x1F83_D9AB_FB41_BD6B;
const CONTINUE: u64 = 0x5BE0_CD19_137E_2179;
const COVERAGE: u64 = 0x9B05_688C_2B3E_6C1F;
const AHEAD: u64 = 0x510E_527F_ADE6_82D1;
const TAILS: u64 = 0xA54F_F53A_5F1D_36F1;
const LEFT: u64 = 0x3C6E_F372_FE94_F82B;

sections! {
    /// The arrays of the copy model. Contents may come from a hostile file: every access is checked.
    pub struct CopyArrays as CopyModel {
        /// Key of each word of the inputs, ascending; 0 stands for words that were never seen.
        words: [u64],
        /// How often each word is copied, 0 to 1.
        rates: [f32],
        /// How often each token, by id, was copied where it occurred: 0 to 255; nothing past the largest one seen.
        tokens: [u8],
    }
    nested {
        /// Left words of copied ones by tail of the output; words that a copy went on with or ended before.
        pointer: ConditionalArrays = "pointer_",
        /// Tokens by tail of the output and number of waiting words; by tail and the word that waits next.
        coverage: ConditionalArrays = "coverage_",
    }
}

/// What stood left of the words that were copied after a tail: the longest tail first, the empty one last.
#[derive(Clone, Copy, Debug)]
pub struct Pointers<'a>([Followers<'a>; 3]);

impl<'a> CopyModel<'a> {
    /// How often a word is copied.
    #[must_use]
    pub fn rate(&self, word: u64) -> f32 {
        let at = self.words.binary_search(&word).or_else(|_| self.words.binary_search(&0));
        at.ok().and_then(|at| self.rates.get(at)).copied().unwrap_or(0.5)
    }

    /// Fills `usual` with how much each word of an input counts as waiting: its rate, or nothing when it is seldom
    /// copied.
    pub fn usual(&self, source_text: &SourceText, rates: &mut Vec<f32>, usual: &mut Vec<f32>) -> f32 {
        rates.clear();
        rates.extend((0..small(source_text.len())).map(|w| self.rate(source_text.key(w))));
        usual.clear();
        usual.extend(rates.iter().map(|&r| if r > COPY_RATE_THRESHOLD { r } else { 0.0 }));
        usual.iter().sum()
    }

    /// What stood left of the words that were copied after these tails: longest tail first, the empty one last.
    #[must_use]
    pub fn pointers(&self, tail: &[TokenId]) -> Pointers<'a> {
        let [long, short] = POINTER_TAILS;
        Pointers([long, short, 0].map(|n| self.pointer.get(condition(POINTER, tail, n, 0))))
    }

    /// How often a token was copied where it occurred.
    #[must_use]
    pub fn token_rate(&self, token: TokenId) -> f32 {
        self.tokens.get(token as usize).map_or(0.0, |&r| f32::from(r) / 256.0)
    }

    /// How often a copy went on from a word to the next, of the times that it could: (went on, could) for this pair of
    /// words, then for the next word alone.
    #[must_use]
    pub fn continued(&self, word: u64, next: u64) -> [(u32, u32); 2] {
        [pair(word, next), next].map(|key| {
            let found = self.pointer.get(CONTINUE ^ key);
            (found.count(1), found.total)
        })
    }

    /// Whether different tokens followed the last few, as often as that many words waited.
    #[must_use]
    pub fn is_ambiguous(&self, tail: &[TokenId], waiting: f32) -> bool {
        self.coverage.get(condition(COVERAGE, tail, COVERAGE_TAILS[1], bucket(waiting))).total > 0
    }

    /// What followed these tails while this word waited next, with that word to its left: by the word, then by its left
    /// word, longest tail first.
    #[must_use]
    pub fn ahead(&self, tail: &[TokenId], word: u64, left: u64) -> [Followers<'a>; 4] {
        let [long, short] = AHEAD_TAILS;
        [(long, AHEAD, word), (short, AHEAD, word), (long, LEFT, left), (short, LEFT, left)]
            .map(|(n, kind, key)| self.coverage.get(condition(kind ^ key, tail, n, 0)))
    }

    /// What followed these tails while so many words waited: longest tail first.
    #[must_use]
    pub fn coverage(&self, tail: &[TokenId], waiting: f32) -> [Followers<'a>; 3] {
        COVERAGE_TAILS.map(|n| self.coverage.get(condition(COVERAGE, tail, n, bucket(waiting))))
    }
}

impl Pointers<'_> {
    /// Whether a copy was ever seen to begin after such a tail.
    #[must_use]
    pub fn known(&self) -> bool {
        let [_, near, _] = self.0;
        near.total > near.count(NO_COPY)
    }

    /// How likely a copy begins here, of the times that it could.
    #[must_use]
    pub fn begins(&self) -> f32 {
        let [long, near, _] = self.0;
        [near, long].iter().fold(0.1, |p, f| {
            let copies = f.total.saturating_sub(f.count(NO_COPY));
            (copies as f32 + 2.0 * p) / (f.total as f32 + 2.0)
        })
    }

    /// How likely the word copied is one with this left neighbour.
    #[must_use]
    pub fn left(&self, left: u64) -> f32 {
        let [long, near, any] = self.0;
        let left = short(left);
        let p = (any.count(left) as f32 + 0.1) / (any.total as f32 + 10.0);
        [near, long].iter().fold(p, |p, f| {
            let copies = f.total.saturating_sub(f.count(NO_COPY));
            (f.count(left) as f32 + 3.0 * p) / (copies as f32 + 3.0)
        })
    }
}

/// The word that waits next to be copied and the word to its left; (0, 1) when none waits.
#[must_use]
pub fn next(source_text: &SourceText, copy_state: &CopyState, rates: &[f32]) -> (u64, u64) {
    let waits = |w: &u32| !copy_state.is_copied(*w) && rates.get(*w as usize).is_some_and(|&r| r > COPY_RATE_THRESHOLD);
    (copy_state.after()..small(source_text.len()))
        .find(waits)
        .map_or((0, 1), |w| (source_text.key(w), source_text.left(w)))
}

/// How many words wait, coarsely.
fn bucket(waiting: f32) -> u64 {
    match waiting {
        w if w < 0.6 => 0,
        w if w < 1.6 => 1,
        w if w < 2.6 => 2,
        _ => 3,
    }
}

fn condition(kind: u64, tail: &[TokenId], tokens: usize, bucket: u64) -> u64 {
    let tail = &tail[tail.len().saturating_sub(tokens)..];
    let start = kind ^ (bucket << 8 | tokens as u64);
    tail.iter().fold(start, |h, &t| (h.rotate_left(5) ^ u64::from(t)).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn pair(word: u64, next: u64) -> u64 {
    word.rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ next
}

/// The low half of a word's key, as followers are stored.
#[must_use]
pub fn short(word: u64) -> u32 {
    word as u32
}

/// Learns from rows, shown twice: first all to [`CopyModelBuilder::count`], then all to [`CopyModelBuilder::learn`].
#[derive(Default)]
pub struct CopyModelBuilder {
    /// word → (rows that hold it, rows whose output copied it)
    seen: FxHashMap<u64, (u32, u32)>,
    counted: CopyArrays,
    pointer: ConditionalBuilder,
    coverage: ConditionalBuilder,
    /// The only token that followed a tail; `AMBIGUOUS` when there were several.
    only: FxHashMap<u64, TokenId>,
    /// Rows learnt from.
    rows: usize,
    /// token → (occurrences, copied ones)
    tokens: FxHashMap<TokenId, (u32, u32)>,
    copy_state: CopyState,
    rates: Vec<f32>,
    usual: Vec<f32>,
}

impl CopyModelBuilder {
    /// Counts which words of a row are copied.
    pub fn count(&mut self, source_text: &SourceText, output: &[TokenId], weight: u32) {
        self.copy_state.reset(source_text.len(), 0.0);
        for (at, &token) in output.iter().enumerate() {
            for n in COVERAGE_TAILS {
                let only = self.only.entry(condition(TAILS, &output[..at], n, 0)).or_insert(token);
                *only = if *only == token { token } else { AMBIGUOUS };
            }
            let goes_on = self.copy_state.active().iter().any(|c| source_text.token(c.place) == Some(token));
            let begins = || {
                source_text.starting_with(token).iter().any(|&s| output[at..].starts_with(source_text.first_word(s)))
            };
            self.count_token(token, goes_on || begins(), weight);
            self.copy_state.push(source_text, &[], token);
        }
        let mut words: Vec<(u64, bool)> =
            (0..small(source_text.len())).map(|w| (source_text.key(w), self.copy_state.is_copied(w))).collect();
        words.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1))); // copied ones first
        words.dedup_by_key(|w| w.0);
        for (word, copied) in words {
            let entry = self.seen.entry(word).or_default();
            entry.0 = entry.0.saturating_add(weight);
            entry.1 = entry.1.saturating_add(if copied { weight } else { 0 });
        }
    }

    fn count_token(&mut self, token: TokenId, copied: bool, weight: u32) {
        if token >= MAX_COUNTED_ID {
            return;
        }
        let counts = self.tokens.entry(token).or_default();
        counts.0 = counts.0.saturating_add(weight);
        counts.1 = counts.1.saturating_add(if copied { weight } else { 0 });
    }

    /// Fixes the rates.
    pub fn counted(&mut self) {
        let once = self.seen.values().filter(|s| s.0 == 1);
        let (rare, copied) = once.fold((0u32, 0u32), |sum, s| (sum.0 + 1, sum.1 + s.1));
        let unknown = (f64::from(copied) + 1.0) / (f64::from(rare) + 2.0);
        let rate = |s: &(u32, u32)| ((f64::from(s.1) + unknown) / (f64::from(s.0) + 1.0)) as f32;
        let mut rates: Vec<(u64, f32)> = self.seen.drain().map(|(word, s)| (word, rate(&s))).collect();
        rates.push((0, unknown as f32));
        rates.sort_unstable_by_key(|r| r.0);
        (self.counted.words, self.counted.rates) = rates.into_iter().unzip();
        let rate = |(seen, copied): (u32, u32)| (256.0 * f64::from(copied) / (f64::from(seen) + 1.0)) as u8;
        let length = self.tokens.keys().max().map_or(0, |&largest| largest as usize + 1);
        self.counted.tokens = vec![0; length];
        for (token, counts) in self.tokens.drain() {
            self.counted.tokens[token as usize] = rate(counts);
        }
    }

    /// Learns from where a row's words are copied and what comes when none is left.
    pub fn learn(&mut self, source_text: &SourceText, output: &[TokenId], weight: u32) {
        self.rows += 1;
        let waiting = self.counted.view().usual(source_text, &mut self.rates, &mut self.usual);
        self.copy_state.reset(source_text.len(), waiting);
        for (at, &token) in output.iter().enumerate() {
            let tail = &output[at.saturating_sub(TAIL)..at];
            let bucket = bucket(self.copy_state.waiting());
            let ambiguous = |n| self.only.get(&condition(TAILS, tail, n, 0)) == Some(&AMBIGUOUS);
            let (word, left) = next(source_text, &self.copy_state, &self.rates);
            for n in COVERAGE_TAILS.into_iter().filter(|&n| ambiguous(n)) {
                self.coverage.add(condition(COVERAGE, tail, n, bucket), token, weight);
                if AHEAD_TAILS.contains(&n) {
                    self.coverage.add(condition(AHEAD ^ word, tail, n, 0), token, weight);
                    self.coverage.add(condition(LEFT ^ left, tail, n, 0), token, weight);
                }
            }
            let longest = self.copy_state.active().iter().max_by_key(|c| c.matched);
            if let Some(copy) = longest.filter(|c| source_text.is_between(c.place)) {
                let word = source_text.word(copy.place);
                let went_on = u32::from(source_text.token(copy.place) == Some(token));
                for key in [pair(source_text.left(word), source_text.key(word)), source_text.key(word)] {
                    self.pointer.add(CONTINUE ^ key, went_on, weight);
                }
            }
            if !self.copy_state.active().iter().any(|c| source_text.token(c.place) == Some(token)) {
                let mut begun = false;
                for start in source_text.starting_with(token) {
                    let ids = source_text.first_word(*start);
                    if output[at..].starts_with(ids) {
                        begun = true;
                        for n in POINTER_TAILS.into_iter().chain([0]) {
                            self.pointer.add(
                                condition(POINTER, tail, n, 0),
                                short(source_text.left(start.word)),
                                weight,
                            );
                        }
                    }
                }
                for n in POINTER_TAILS.into_iter().filter(|_| !begun) {
                    self.pointer.add(condition(POINTER, tail, n, 0), NO_COPY, weight);
                }
            }
            self.copy_state.push(source_text, &self.usual, token);
        }
    }

    /// What was learnt. Where there are many rows, conditions that held once are left out: they would fill the file.
    #[must_use]
    pub fn build(self) -> CopyArrays {
        let least = if self.rows > MANY_ROWS { 2 } else { 1 };
        let often = |followers: &[(u32, u32)]| followers.iter().map(|f| u64::from(f.1)).sum::<u64>() >= least;
        CopyArrays {
            pointer: self.pointer.build(|found| often(found) && found.iter().any(|f| f.0 != NO_COPY)),
            coverage: self.coverage.build(often),
            ..self.counted
        }
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
