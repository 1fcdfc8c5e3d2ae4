//! The words of a text: what retrieval compares.

use xxhash_rust::xxh3::xxh3_64;

/// Words before these are left out: a text is judged by its last so many.
pub const MAX_WORDS: usize = 4096;

/// What a word is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordKind {
    /// Letters, digits and the marks on them.
    Word,
    /// Other visible characters in a row.
    Punctuation,
    /// One character of a script that is written without spaces.
    Character,
}

/// One word of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// xxh3-64 of the lower-cased word (character by character; a final sigma counts as a sigma).
    pub key: u64,
    /// What it is made of.
    pub kind: WordKind,
}

/// Splits a text into words; `out` is cleared first.
///
/// A maximal run of alphanumeric characters and combining marks is a word, every character of a script written without
/// spaces is a word of its own, a maximal run of other visible characters (`_` among them) is punctuation. Of more than
/// [`MAX_WORDS`] words, the last are kept: a prompt ends with what is asked. Stops before a word that does not end within
/// the first 4 GiB.
///
/// # Complexity
/// O(bytes); about 5 ns per byte of ASCII text. One buffer is allocated per call, and only when something has to be
/// lower-cased.
pub fn split(text: &str, out: &mut Vec<Word>) {
    out.clear();
    let mut lower = String::new();
    let mut at = 0;
    while let Some((kind, width)) = kind_at(text, at) {
        let from = at;
        at += width;
        let Some(kind) = kind else { continue };
        if kind != WordKind::Character {
            while let Some((Some(_), width)) = kind_at(text, at).filter(|next| next.0 == Some(kind)) {
                at += width;
            }
        }
        let (Ok(start), Ok(end)) = (u32::try_from(from), u32::try_from(at)) else { break };
        let key = key(text.get(from..at).unwrap_or(""), &mut lower);
        if out.len() == 2 * MAX_WORDS {
            out.drain(..MAX_WORDS);
        }
        out.push(Word { start, end, key, kind });
    }
    out.drain(..out.len().saturating_sub(MAX_WORDS));
}

/// What stands at a byte and how many bytes it takes; kind `None` is white space, `None` altogether the end.
#[inline]
fn kind_at(text: &str, at: usize) -> Option<(Option<WordKind>, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte.is_ascii_alphanumeric() {
        Some((Some(WordKind::Word), 1))
    } else if matches!(byte, b' ' | b'\t'..=b'\r') {
        Some((None, 1))
    } else if byte.is_ascii() {
        Some((Some(WordKind::Punctuation), 1))
    } else {
        let c = text.get(at..)?.chars().next()?;
        Some((kind(c), c.len_utf8()))
    }
}

fn kind(c: char) -> Option<WordKind> {
    if c.is_whitespace() {
        None
    } else if is_unspaced(c) {
        Some(WordKind::Character)
    } else if c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36F}') {
        Some(WordKind::Word)
    } else {
        Some(WordKind::Punctuation)
    }
}

/// Whether a character's script is written without spaces between words.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{E00}'..='\u{EFF}' // Thai, Lao
        | '\u{1000}'..='\u{109F}' | '\u{A9E0}'..='\u{A9FF}' | '\u{AA60}'..='\u{AA7F}' // Myanmar
        | '\u{1780}'..='\u{17FF}' | '\u{19E0}'..='\u{19FF}' // Khmer
        | '\u{3041}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' | '\u{FF66}'..='\u{FF9F}' | '\u{1AFF0}'..='\u{1B16F}' // kana
        | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}' // Han
    )
}

/// The key of a word; `lower` is a buffer to lower-case it in.
fn key(word: &str, lower: &mut String) -> u64 {
    if word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return xxh3_64(word.as_bytes());
    }
    lower.clear();
    if word.is_ascii() {
        lower.push_str(word);
        lower.make_ascii_lowercase();
    } else {
        lower.extend(word.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }));
    }
    xxh3_64(lower.as_bytes())
}
