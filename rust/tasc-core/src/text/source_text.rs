//! An input as a thing to copy from: every word spelled as an output would spell it.

use rustc_hash::FxHashSet;

use super::case::{Case, Cases, Written};
use super::pieces::{self, MAX_PIECE, PieceTokenizer, Pieces, TokenizationCache};
use super::words::{self, Word, WordKind};
use crate::{Result, TokenId};

/// Words that may be copied: the last of an input. Earlier ones are retrieved on, not copied from.
pub const MAX_COPIED: usize = 1024;

/// Characters of a script without spaces that are spelled together.
const RUN: usize = 12;

/// A stretch of ids in the surface's arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdRange {
    /// First id.
    pub start: u32,
    /// One past the last id.
    pub end: u32,
}

/// Words spelled together: one word, or a run of characters of a script without spaces.
#[derive(Clone, Copy, Debug)]
struct WordGroup {
    /// One past its last word.
    words: u32,
    /// With the blank or nothing before it, as in the input.
    piece: IdRange,
}

/// A place where a copy can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// Its first token.
    pub token: TokenId,
    /// Word that it copies.
    pub word: u32,
    /// Whether the blank before the word is copied with it.
    pub spaced: bool,
    /// How it is written; `None`: as it stands.
    pub case: Option<Case>,
}

/// A copy under way: where its next token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyPosition {
    at: u32,
    end: u32,
    chunk: u32,
    /// Word with which the present chunk's spelling began.
    from: u32,
    case: Option<Case>,
}

/// The input written otherwise; what that does not change is empty here.
#[derive(Clone, Debug)]
struct Recased {
    case: Case,
    /// Spelling of every chunk, with the blank before it.
    pieces: Vec<IdRange>,
    /// Spelling of every word to the end of its chunk.
    bare: Vec<IdRange>,
}

/// An input, spelled. Its memory is re-used from request to request.
#[derive(Clone, Debug, Default)]
pub struct SourceText {
    words: Vec<Word>,
    /// Words that come before those that can be copied. Other numbers of words count from here.
    too_early: usize,
    chunks: Vec<WordGroup>,
    /// WordGroup of every word.
    chunk_of: Vec<u32>,
    /// Spelling of every word to the end of its chunk, without what stands before it.
    bare: Vec<IdRange>,
    cases: Cases,
    recased: Vec<Recased>,
    /// Where copies can begin, by token.
    starts: Vec<Start>,
    ids: Vec<TokenId>,
}

impl SourceText {
    /// From now on inputs can also be copied written in these ways.
    pub fn set_cases(&mut self, cases: Cases) {
        self.cases = cases;
    }

    /// Reads an input. Pieces that neither `known` nor `cache` hold are asked of the tokenizer, in one call; without
    /// one they cannot be copied.
    ///
    /// # Complexity
    /// O(text).
    ///
    /// # Errors
    /// Errors of the tokenizer.
    pub fn read(
        &mut self,
        text: &str,
        known: &Pieces<'_>,
        cache: &mut TokenizationCache,
        tokenizer: Option<&dyn PieceTokenizer>,
    ) -> Result<()> {
        let pieces = self.split(text);
        if let Some(tokenizer) = tokenizer {
            let missing = pieces.missing(known, cache);
            if !missing.is_empty() {
                cache.learn(&missing, tokenizer)?;
            }
        }
        self.spell(pieces, known, cache);
        Ok(())
    }

    /// Begins to read an input: splits it into pieces. [`SourceText::spell`] ends it.
    pub(crate) fn split<'t>(&mut self, text: &'t str) -> InputPieces<'t> {
        words::split(text, &mut self.words);
        InputPieces(self.pieces(text))
    }

    /// Ends the reading of an input. Pieces that neither `known` nor `cache` hold cannot be copied.
    pub(crate) fn spell(&mut self, pieces: InputPieces<'_>, known: &Pieces<'_>, cache: &TokenizationCache) {
        for piece in pieces.0 {
            let key = pieces::key(&piece.text);
            let start = self.ids.len();
            self.ids.extend_from_slice(known.get(key).or_else(|| cache.get(key)).unwrap_or(&[]));
            let spelled = IdRange { start: small(start), end: small(self.ids.len()) };
            match piece.of {
                Of::Chunk(c, None) => self.chunks[c].piece = spelled,
                Of::Word(w, None) => self.bare[w] = spelled,
                Of::Chunk(c, Some(k)) => self.recased[k].pieces[c] = spelled,
                Of::Word(w, Some(k)) => self.recased[k].bare[w] = spelled,
            }
        }
        self.find_starts();
    }

    /// Adds the pieces of a text that are neither known nor learnt.
    pub fn missing<'t>(
        &mut self,
        text: &'t str,
        known: &Pieces<'_>,
        cache: &TokenizationCache,
        missing: &mut FxHashSet<Written<'t>>,
    ) {
        words::split(text, &mut self.words);
        for piece in self.pieces(text).into_iter().map(|p| p.text).filter(|p| p.len() <= MAX_PIECE) {
            if is_absent(&piece, known, cache) {
                missing.insert(piece);
            }
        }
    }

    /// Cuts the text into chunks and lists what must be spelled.
    fn pieces<'t>(&mut self, text: &'t str) -> Vec<Piece<'t>> {
        let Self { words, too_early, chunks, chunk_of, bare, cases, recased, starts, ids } = self;
        chunks.clear();
        chunk_of.clear();
        bare.clear();
        starts.clear();
        ids.clear();
        *too_early = words.len().saturating_sub(MAX_COPIED);
        let (earlier, words) = words.split_at(*too_early);
        let mut listed = Vec::with_capacity(2 * words.len());
        let (mut first, mut before) = (0, earlier.last().map_or(0, |word| word.end as usize));
        while let Some(word) = words.get(first) {
            let run = |pair: &[Word]| pair[1].kind == WordKind::Character && pair[0].end == pair[1].start;
            let more = match word.kind {
                WordKind::Character => words[first..].windows(2).take(RUN - 1).take_while(|p| run(p)).count(),
                _ => 0,
            };
            let last = first + more;
            let end = words[last].end as usize;
            listed.push(Piece { text: text.get(before..end).unwrap_or("").into(), of: Of::Chunk(chunks.len(), None) });
            for (w, word) in words.iter().enumerate().take(last + 1).skip(first) {
                let text = text.get(word.start as usize..end).unwrap_or("").into();
                listed.push(Piece { text, of: Of::Word(w, None) });
                chunk_of.push(small(chunks.len()));
                bare.push(IdRange::default());
            }
            chunks.push(WordGroup { words: small(last + 1), piece: IdRange::default() });
            (first, before) = (last + 1, end);
        }
        recased.clear();
        let as_is = listed.len();
        for (k, case) in cases.iter().enumerate() {
            let (pieces, bare) = (vec![IdRange::default(); chunks.len()], vec![IdRange::default(); bare.len()]);
            recased.push(Recased { case, pieces, bare });
            for at in 0..as_is {
                let of = match listed[at].of {
                    Of::Chunk(c, _) => Of::Chunk(c, Some(k)),
                    Of::Word(w, _) => Of::Word(w, Some(k)),
                };
                if let Some(text) = case.apply(&listed[at].text) {
                    listed.push(Piece { text: text.into(), of });
                }
            }
        }
        listed
    }

    fn find_starts(&mut self) {
        let mut starts = std::mem::take(&mut self.starts);
        let ways = std::iter::once(None).chain(self.cases.iter().map(Some));
        for case in ways {
            let mut chunk = 0;
            for word in (0..).take(self.bare.len()) {
                let bare = self.bare(word, case);
                starts.extend(self.first(bare).map(|token| Start { token, word, spaced: false, case }));
                if self.chunk_of.get(word as usize) == Some(&chunk) {
                    // the first word of a chunk
                    let piece = self.piece(chunk, case);
                    let spaced = self.first(piece).filter(|_| self.spelled(piece) != self.spelled(bare));
                    starts.extend(spaced.map(|token| Start { token, word, spaced: true, case }));
                    chunk += 1;
                }
            }
        }
        starts.sort_unstable();
        self.starts = starts;
    }

    fn first(&self, spelled: IdRange) -> Option<TokenId> {
        self.spelled(spelled).first().copied()
    }

    fn recased(&self, case: Case) -> Option<&Recased> {
        self.recased.iter().find(|r| r.case == case)
    }

    /// Spelling of a chunk with the blank before it.
    fn piece(&self, chunk: u32, case: Option<Case>) -> IdRange {
        let found = match case {
            None => self.chunks.get(chunk as usize).map(|c| c.piece),
            Some(case) => self.recased(case).and_then(|r| r.pieces.get(chunk as usize).copied()),
        };
        found.unwrap_or_default()
    }

    /// Spelling of a word to the end of its chunk.
    fn bare(&self, word: u32, case: Option<Case>) -> IdRange {
        let all = match case {
            None => Some(&self.bare),
            Some(case) => self.recased(case).map(|r| &r.bare),
        };
        all.and_then(|b| b.get(word as usize)).copied().unwrap_or_default()
    }

    /// The spelling with which a copy goes on to a chunk: as it is written, where that changes the chunk.
    fn next_piece(&self, chunk: u32, case: Option<Case>) -> IdRange {
        let recased = case.map(|c| self.piece(chunk, Some(c))).filter(|p| p.start < p.end);
        recased.unwrap_or_else(|| self.piece(chunk, None))
    }

    fn spelled(&self, s: IdRange) -> &[TokenId] {
        self.ids.get(s.start as usize..s.end as usize).unwrap_or(&[])
    }

    /// All words, those too early to be copied included.
    #[must_use]
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Number of words that can be copied.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bare.len()
    }

    /// Whether nothing can be copied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bare.is_empty()
    }

    /// The key of the word left of word `w`; 0 at the beginning.
    #[must_use]
    pub fn left(&self, w: u32) -> u64 {
        let left = (self.too_early + w as usize).checked_sub(1);
        left.and_then(|at| self.words.get(at)).map_or(0, |word| word.key)
    }

    /// The key of a word.
    #[must_use]
    pub fn key(&self, w: u32) -> u64 {
        self.words.get(self.too_early + w as usize).map_or(0, |word| word.key)
    }

    /// The ids of the whole input, about as the tokenizer would give them.
    pub fn running(&self) -> impl Iterator<Item = TokenId> {
        self.chunks.iter().flat_map(|c| self.spelled(c.piece)).copied()
    }

    /// All places where a copy can begin, in order of their tokens.
    #[must_use]
    pub fn starts(&self) -> &[Start] {
        &self.starts
    }

    /// The places where a copy can begin with `token`.
    #[must_use]
    pub fn starting_with(&self, token: TokenId) -> &[Start] {
        let from = self.starts.partition_point(|s| s.token < token);
        let len = self.starts[from..].iter().take_while(|s| s.token == token).count();
        &self.starts[from..from + len]
    }

    /// The copy that begins at `start`, before its first token.
    #[must_use]
    pub fn begin(&self, start: Start) -> Option<CopyPosition> {
        let chunk = *self.chunk_of.get(start.word as usize)?;
        let spelled = if start.spaced { self.piece(chunk, start.case) } else { self.bare(start.word, start.case) };
        Some(CopyPosition { at: spelled.start, end: spelled.end, chunk, from: start.word, case: start.case })
    }

    /// The ids of the first word (or run of characters) of a copy that begins at `start`.
    #[must_use]
    pub fn first_word(&self, start: Start) -> &[TokenId] {
        self.begin(start).map_or(&[], |p| self.spelled(IdRange { start: p.at, end: p.end }))
    }

    /// The next token of a copy.
    #[must_use]
    pub fn token(&self, place: CopyPosition) -> Option<TokenId> {
        self.ids.get(place.at as usize).copied().filter(|_| place.at < place.end)
    }

    /// Whether a copy stands between words: the one before is whole.
    #[must_use]
    pub fn is_between(&self, place: CopyPosition) -> bool {
        self.next_piece(place.chunk, place.case).start == place.at
    }

    /// The word that a copy is in, or will begin with its next token.
    #[must_use]
    pub fn word(&self, place: CopyPosition) -> u32 {
        place.from
    }

    /// One token further: the words that this completes, and where the copy stands then (`None`: at the input's end).
    #[must_use]
    pub fn step(&self, place: CopyPosition) -> (std::ops::Range<u32>, Option<CopyPosition>) {
        let next = CopyPosition { at: place.at + 1, ..place };
        if next.at < next.end {
            return (0..0, Some(next));
        }
        let Some(done) = self.chunks.get(place.chunk as usize) else { return (0..0, None) };
        let IdRange { start: at, end } = self.next_piece(place.chunk + 1, place.case);
        let on = CopyPosition { at, end, chunk: place.chunk + 1, from: done.words, case: place.case };
        (place.from..done.words, Some(on).filter(|p| p.at < p.end))
    }
}

/// The pieces of an input.
pub(crate) struct InputPieces<'t>(Vec<Piece<'t>>);

impl InputPieces<'_> {
    /// Returns those that neither `known` nor `cache` hold, each once.
    pub(crate) fn missing(&self, known: &Pieces<'_>, cache: &TokenizationCache) -> Vec<&str> {
        let absent = |p: &&str| p.len() <= MAX_PIECE && is_absent(p, known, cache);
        let mut missing: Vec<&str> = self.0.iter().map(|p| p.text.as_ref()).filter(absent).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }
}

struct Piece<'t> {
    text: Written<'t>,
    of: Of,
}

/// What a piece spells, and by which of the recased forms.
#[derive(Clone, Copy)]
enum Of {
    Chunk(usize, Option<usize>),
    Word(usize, Option<usize>),
}

/// Whether nobody knows yet how a piece is spelled.
fn is_absent(piece: &str, known: &Pieces<'_>, cache: &TokenizationCache) -> bool {
    let key = pieces::key(piece);
    known.get(key).is_none() && cache.get(key).is_none()
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
