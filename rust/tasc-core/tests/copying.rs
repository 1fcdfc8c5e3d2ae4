//! What may be copied from an input, and what is copied, against a twin that starts anew at every token.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tasc_core::text::pieces::{MAX_PIECE, TokenizationCache};
use tasc_core::text::source_text::MAX_COPIED;
use tasc_core::text::words::{Word, WordKind, split};
use tasc_core::text::{CopyState, PieceTokenizer, Pieces, SourceText};
use tasc_core::{Result, TokenId};
use toys::Toy;

/// Most copies that are followed at a time.
const FOLLOWED: usize = 24;

fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::new();
    split(text, &mut out);
    out.split_off(out.len().saturating_sub(MAX_COPIED))
}

/// Every word with the blank before it.
fn words_of(text: &str) -> Vec<&str> {
    let starts: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).chain([text.len()]).collect();
    starts.windows(2).map(|w| &text[w[0]..w[1]]).collect()
}

/// Words that are spelled together: one, or at most twelve characters of a script without spaces that touch.
fn chunks(words: &[Word]) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    for (w, word) in words.iter().enumerate() {
        let touches = |last: &Range<usize>| {
            let before = words[last.end - 1];
            let characters = [before, *word].iter().all(|w| w.kind == WordKind::Character);
            characters && before.end == word.start && last.len() < 12
        };
        match chunks.last_mut().filter(|last| touches(last)) {
            Some(last) => last.end = w + 1,
            None => chunks.push(w..w + 1),
        }
    }
    chunks
}

/// All that a copy from one place can produce: its tokens, and the words that are whole after so many of them.
#[derive(Debug)]
struct Chain {
    first: TokenId,
    word: usize,
    spaced: bool,
    tokens: Vec<TokenId>,
    /// (tokens, the words that are whole then)
    ends: Vec<(usize, Range<usize>)>,
    first_word: usize,
}

fn chains(text: &str, toy: Toy) -> Vec<Chain> {
    let words = words(text);
    let chunks = chunks(&words);
    let spell = |from: usize, to: u32| {
        let piece = &text[from..to as usize];
        if piece.len() > MAX_PIECE { vec![] } else { toy.ids(piece) }
    };
    let end = |c: usize| words[chunks[c].end - 1].end;
    let before = |c: usize| if c == 0 { 0 } else { end(c - 1) as usize };
    let mut found = Vec::new();
    for (c, chunk) in chunks.iter().enumerate() {
        let bare = |w: usize| spell(words[w].start as usize, end(c));
        let spaced = spell(before(c), end(c));
        let mut begins: Vec<_> = chunk.clone().map(|w| (w, false, bare(w))).collect();
        if spaced != bare(chunk.start) {
            begins.push((chunk.start, true, spaced));
        }
        for (word, spaced, tokens) in begins.into_iter().filter(|b| !b.2.is_empty()) {
            let first_word = tokens.len();
            let mut chain =
                Chain { first: tokens[0], word, spaced, ends: vec![(first_word, word..chunk.end)], tokens, first_word };
            for (next, words) in chunks.iter().enumerate().skip(c + 1) {
                let piece = spell(before(next), end(next));
                if piece.is_empty() {
                    break;
                }
                chain.tokens.extend(piece);
                chain.ends.push((chain.tokens.len(), words.clone()));
            }
            found.push(chain);
        }
    }
    found.sort_by_key(|c| (c.first, c.word, c.spaced));
    found
}

/// What an output has copied.
#[derive(Debug, Default, PartialEq)]
struct Copied {
    /// Next token, whether between words, the word, tokens copied: the oldest copy first.
    active: Vec<(TokenId, bool, u32, u32)>,
    copied: Vec<u32>,
    after: u32,
}

/// From scratch: every chain, begun at every place of the output.
fn naive(chains: &[Chain], output: &[TokenId]) -> Copied {
    let mut found = Copied::default();
    let mut last = (0, 0);
    for begun in 0..output.len() {
        for chain in chains {
            let same = output[begun..].iter().zip(&chain.tokens).take_while(|(a, b)| a == b).count();
            for (_, words) in chain.ends.iter().filter(|e| e.0 <= same) {
                found.copied.extend(words.clone().map(|w| w as u32));
            }
            if let Some((tokens, words)) = chain.ends.iter().rfind(|e| e.0 <= same)
                && begun + tokens >= last.0
            {
                last = (begun + tokens, words.end);
            }
            let matched = output.len() - begun;
            if same == matched && matched < chain.tokens.len() {
                let between = chain.ends.iter().any(|e| e.0 == matched);
                let within = chain.ends.iter().find(|e| e.0 > matched).unwrap();
                found.active.push((chain.tokens[matched], between, within.1.start as u32, matched as u32));
            }
        }
    }
    found.copied.sort_unstable();
    found.copied.dedup();
    found.after = last.1 as u32;
    found
}

fn seen(source_text: &SourceText, copy_state: &CopyState) -> Copied {
    let active = copy_state.active().iter().map(|c| {
        (source_text.token(c.place).unwrap(), source_text.is_between(c.place), source_text.word(c.place), c.matched)
    });
    let words = u32::try_from(source_text.len()).unwrap();
    Copied {
        active: active.collect(),
        copied: (0..words).filter(|&w| copy_state.is_copied(w)).collect(),
        after: copy_state.after(),
    }
}

fn read(text: &str, toy: Toy) -> SourceText {
    let mut source_text = SourceText::default();
    source_text.read(text, &Pieces::default(), &mut TokenizationCache::default(), Some(&toy)).unwrap();
    source_text
}

/// Random texts: ASCII, Chinese, both, punctuation, marks.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{1,3}( [abc]{1,3}){0,9}",
        "[ab0-9_.,\"' -]{0,40}",
        "[北京上海大]{0,30}",
        "([ab]{1,3}|[北京上]{1,14}|[,.!]{1,2}| |\u{3000}|\u{301}|\u{FFFD}){0,16}",
        "\\PC{0,30}",
    ]
}

/// How outputs are mixed: stretches of the input (from, length) and noise.
fn recipe() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, bool)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 1..12usize, prop::bool::weighted(0.3)), 0..8)
}

fn toy() -> impl Strategy<Value = Toy> {
    prop::sample::select(Toy::ALL.to_vec())
}

fn cook(text: &str, toy: Toy, recipe: &[(prop::sample::Index, usize, bool)]) -> Vec<TokenId> {
    let characters: Vec<char> = text.chars().collect();
    let mut output = Vec::new();
    for (at, len, noise) in recipe {
        if *noise || characters.is_empty() {
            output.extend(toy.ids(&"ab z"[at.index(4)..]));
        } else {
            let at = at.index(characters.len());
            let piece: String = characters[at..(at + 3 * len).min(characters.len())].iter().collect();
            output.extend(toy.ids(&piece));
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_twin_at_every_token(text in text(), toy in toy(), recipe in recipe()) {
        let source_text = read(&text, toy);
        let chains = chains(&text, toy);
        let starts: Vec<_> = source_text.starts().iter().map(|s| (s.token, s.word as usize, s.spaced)).collect();
        prop_assert_eq!(starts, chains.iter().map(|c| (c.first, c.word, c.spaced)).collect::<Vec<_>>());
        for (start, chain) in source_text.starts().iter().zip(&chains) {
            prop_assert_eq!(source_text.first_word(*start), &chain.tokens[..chain.first_word]);
        }
        let usual: Vec<f32> = (0..source_text.len()).map(|w| [0.0, 0.5, 0.75][w % 3]).collect();
        let mut copy_state = CopyState::default();
        copy_state.reset(source_text.len(), usual.iter().sum());
        let output = cook(&text, toy, &recipe);
        let mut all_followed = true;
        for n in 0..=output.len() {
            if n > 0 {
                copy_state.push(&source_text, &usual, output[n - 1]);
            }
            let (fast, slow) = (seen(&source_text, &copy_state), naive(&chains, &output[..n]));
            let begins = |n: usize| chains.iter().filter(|c| Some(&c.first) == output.get(n)).count();
            all_followed &= slow.active.len() + begins(n) <= FOLLOWED;
            prop_assert!(fast.active.len() <= FOLLOWED);
            if all_followed || n == 0 {
                prop_assert_eq!(&fast, &slow, "after {} of {:?}", n, output);
            } else {
                prop_assert!(fast.copied.iter().all(|w| slow.copied.contains(w)));
                prop_assert!(fast.active.iter().all(|c| slow.active.contains(c)));
            }
            let waiting = (0..source_text.len()).filter(|&w| !copy_state.is_copied(w as u32)).map(|w| usual[w]).sum::<f32>();
            prop_assert!((copy_state.waiting() - waiting).abs() < 1e-4);
        }
    }

    /// A word counts as copied just when its spelling, or that of the run of characters it belongs to, is somewhere in
    /// the output.
    #[test]
    fn a_copied_word_is_in_the_output(text in text(), toy in toy(), recipe in recipe()) {
        let source_text = read(&text, toy);
        let output = cook(&text, toy, &recipe);
        let mut copy_state = CopyState::default();
        copy_state.reset(source_text.len(), 0.0);
        output.iter().for_each(|&t| copy_state.push(&source_text, &[], t));
        let words = words(&text);
        for chunk in chunks(&words) {
            let occurs = |w: usize| {
                let mut starts = source_text.starts().iter().filter(|s| s.word as usize == w);
                starts.any(|s| output.windows(source_text.first_word(*s).len()).any(|o| o == source_text.first_word(*s)))
            };
            let mut copied = false;
            for w in chunk {
                copied |= occurs(w);
                prop_assert!(copied || !copy_state.is_copied(w as u32), "word {w} is not in the output");
                prop_assert!(!copied || copy_state.is_copied(w as u32) || source_text.starts().len() > FOLLOWED, "word {w}");
            }
        }
    }

    #[test]
    fn a_fork_equals_a_replay(text in text(), toy in toy(), recipe in recipe(), at in any::<prop::sample::Index>()) {
        let source_text = read(&text, toy);
        let usual = vec![0.5; source_text.len()];
        let output = cook(&text, toy, &recipe);
        let replayed = |from: &CopyState, tokens: &[TokenId]| {
            let mut copy_state = CopyState::default();
            copy_state.reset(3, 9.0);
            copy_state.push(&source_text, &[], 97); // left-overs that must not show
            copy_state.copy_from(from);
            tokens.iter().for_each(|&t| copy_state.push(&source_text, &usual, t));
            copy_state
        };
        let mut fresh = CopyState::default();
        fresh.reset(source_text.len(), source_text.len() as f32 / 2.0);
        let split = at.index(output.len() + 1);
        let fork = replayed(&fresh, &output[..split]);
        let forked = replayed(&fork, &output[split..]);
        let whole = replayed(&fresh, &output);
        prop_assert_eq!(seen(&source_text, &forked), seen(&source_text, &whole));
        prop_assert_eq!(forked.waiting(), whole.waiting());
        prop_assert_eq!(seen(&source_text, &fork), seen(&source_text, &replayed(&fresh, &output[..split])));
    }

    /// Memory that is re-used, and spellings that are stored, learnt or asked for, make no difference.
    #[test]
    fn reading_depends_on_the_text_alone(texts in prop::collection::vec(text(), 1..5), toy in toy()) {
        let (mut used, mut learnt) = (SourceText::default(), TokenizationCache::default());
        for text in &texts {
            used.read(text, &Pieces::default(), &mut learnt, Some(&toy)).unwrap();
            let mut missing = Default::default();
            SourceText::default().missing(text, &Pieces::default(), &learnt, &mut missing);
            prop_assert!(missing.is_empty(), "{missing:?}");
            let fresh = read(text, toy);
            let mut stored = SourceText::default();
            stored.read(text, &learnt.freeze().view(), &mut TokenizationCache::default(), Some(&Silent)).unwrap();
            for source_text in [&used, &stored] {
                prop_assert_eq!(source_text.starts(), fresh.starts());
                prop_assert!(source_text.running().eq(fresh.running()));
                prop_assert_eq!(source_text.words(), fresh.words());
                for start in fresh.starts() {
                    prop_assert_eq!(source_text.first_word(*start), fresh.first_word(*start));
                }
            }
        }
    }

    /// Pieces from a hostile file give any tokens, never a panic.
    #[test]
    fn hostile_spellings_never_panic(
        text in text(),
        starts in prop::collection::vec(prop_oneof![9 => 0..30u32, 1 => any::<u32>()], 0..30),
        ids in prop::collection::vec(0..5u32, 0..30),
    ) {
        let mut learnt = TokenizationCache::default();
        SourceText::default().read(&text, &Pieces::default(), &mut learnt, Some(&Toy::Pairs)).unwrap();
        let frozen = learnt.freeze();
        let known = Pieces { keys: &frozen.keys, starts: &starts, ids: &ids };
        let mut source_text = SourceText::default();
        source_text.read(&text, &known, &mut TokenizationCache::default(), None).unwrap();
        let mut copy_state = CopyState::default();
        copy_state.reset(source_text.len(), 1.0);
        for &token in ids.iter().chain(&ids) {
            copy_state.push(&source_text, &[0.5], token);
            seen(&source_text, &copy_state);
        }
    }
}

/// Knows nothing and says so.
struct Silent;

impl PieceTokenizer for Silent {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        assert!(pieces.iter().all(|p| p.len() > MAX_PIECE), "{pieces:?} are known");
        Ok(vec![vec![]; pieces.len()])
    }
}

#[test]
fn copies_by_example() {
    let source_text = read("fly to new york, now", Toy::Glued);
    let mut copy_state = CopyState::default();
    copy_state.reset(source_text.len(), 6.0);
    let mut say = |text: &str| {
        Toy::Glued.ids(text).iter().for_each(|&t| copy_state.push(&source_text, &[1.0; 6], t));
        seen(&source_text, &copy_state)
    };
    assert_eq!(say("to=").copied, [1]);
    let half = say("\"ne");
    assert_eq!(half.active, [(toys::id("w"), false, 2, 2)]);
    assert_eq!((half.copied.as_slice(), half.after), (&[1][..], 2));
    let between = say("w");
    assert_eq!(between.active, [(toys::id(" y"), true, 3, 3)]);
    assert_eq!((between.copied.as_slice(), between.after), (&[1, 2][..], 3));
    assert_eq!(say(" york").copied, [1, 2, 3]);
    // the comma stands there without its blank, then a copy runs to the end and not beyond
    assert_eq!(say(", now").copied, [1, 2, 3, 4, 5]);
    assert_eq!(say("").active, []);
    assert_eq!(copy_state.waiting(), 1.0);
    copy_state.push(&source_text, &[], 1);
    assert!(copy_state.active().is_empty());
}

#[test]
fn a_character_alone_is_a_start_but_the_run_is_one_piece() {
    let source_text = read("去 北京市", Toy::Words);
    let ids = |texts: &[&str]| texts.iter().map(|t| toys::id(t)).collect::<Vec<_>>();
    let firsts: Vec<_> =
        (0..4).map(|w| source_text.starts().iter().find(|s| s.word == w && !s.spaced).unwrap()).collect();
    let spelled: Vec<_> = firsts.iter().flat_map(|s| source_text.first_word(**s).to_vec()).collect();
    assert_eq!(spelled, ids(&["去", "北京市", "京市", "市"]));
    let mut copy_state = CopyState::default();
    copy_state.reset(source_text.len(), 0.0);
    copy_state.push(&source_text, &[], toys::id("京市"));
    assert_eq!(seen(&source_text, &copy_state).copied, [2, 3], "the character before is not copied");
}

/// A long input is spelled in one call, and only so many of its words.
#[test]
fn the_speller_is_asked_once() {
    struct Counting(AtomicUsize);
    impl PieceTokenizer for Counting {
        fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(pieces.is_sorted(), "the same order in every run");
            assert!(pieces.windows(2).all(|p| p[0] != p[1]));
            assert!(pieces.len() <= 2 * MAX_COPIED && pieces.iter().all(|p| p.len() <= MAX_PIECE));
            Toy::Pairs.tokenize_pieces(pieces)
        }
    }
    let text: String = (0..5000u32).map(|k| format!("w{k} ")).collect();
    let (counting, mut learnt) = (Counting(AtomicUsize::new(0)), TokenizationCache::default());
    let mut source_text = SourceText::default();
    for _ in 0..2 {
        source_text.read(&text, &Pieces::default(), &mut learnt, Some(&counting)).unwrap();
    }
    assert_eq!(counting.0.into_inner(), 1, "what was asked for once is remembered");
    assert_eq!(source_text.len(), MAX_COPIED);
    let first = 5000 - MAX_COPIED; // the first word that can be copied
    let running: Vec<TokenId> = source_text.running().collect();
    let last_words: String = (first..5000).map(|k| format!(" w{k}")).collect();
    assert_eq!(running, Toy::Pairs.tokenize_pieces(&words_of(&last_words)).unwrap().concat());
    let key = |k: usize| words(&format!("w{k}"))[0].key;
    assert_eq!((source_text.left(0), source_text.key(0)), (key(first - 1), key(first)));
    learnt.bound(learnt.len());
    assert!(!learnt.is_empty());
    learnt.bound(learnt.len() - 1);
    assert!(learnt.is_empty());
}

/// A word that is too long to be spelled can neither be copied nor be copied across.
#[test]
fn words_that_are_too_long() {
    let text = format!("a {} b {}c", "x".repeat(10_000), " ".repeat(MAX_PIECE));
    let source_text = read(&text, Toy::Glued);
    assert_eq!(source_text.len(), 4);
    let starts: Vec<_> = source_text.starts().iter().map(|s| (s.word, s.spaced)).collect();
    assert_eq!(starts, [(0, false), (2, false), (3, false), (2, true)], "c is too far from b");
    let mut copy_state = CopyState::default();
    copy_state.reset(source_text.len(), 0.0);
    for token in ["a", " b"] {
        copy_state.push(&source_text, &[], toys::id(token));
        assert!(copy_state.active().is_empty());
    }
    assert_eq!(seen(&source_text, &copy_state).copied, [0, 2]);
}
