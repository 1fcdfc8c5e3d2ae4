//! Letters as an output may write them: `dallas` in the input, `DALLAS` in the query.

use std::borrow::Cow;

/// A way to write a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// all letters small
    Lower,
    /// ALL LETTERS CAPITAL
    Upper,
    /// Every Word Begins With A Capital
    Title,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lower, Self::Upper, Self::Title];

    /// The text written this way; `None` when that changes nothing.
    #[must_use]
    pub fn apply(self, text: &str) -> Option<String> {
        let changed = match self {
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Title => title(text),
        };
        (changed != text).then_some(changed)
    }
}

fn title(text: &str) -> String {
    let mut changed = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            changed.extend(c.to_lowercase());
        } else {
            changed.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric();
    }
    changed
}

/// The ways that a task's outputs write words of its inputs, besides as they stand there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cases(u8);

impl Cases {
    /// None: words are copied as they stand.
    pub const NONE: Self = Self(0);

    /// From the bits of [`Cases::bits`]; unknown ones are passed over.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 0b111)
    }

    /// A bit for each of [`Case::ALL`].
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Forms of [`Case::ALL`] that belong to the set.
    pub fn iter(self) -> impl Iterator<Item = Case> {
        Case::ALL.into_iter().filter(move |&c| self.0 >> c as u8 & 1 == 1)
    }
}

impl FromIterator<Case> for Cases {
    fn from_iter<I: IntoIterator<Item = Case>>(cases: I) -> Self {
        Self(cases.into_iter().fold(0, |bits, c| bits | 1 << c as u8))
    }
}

/// A piece of text, written as it stands or otherwise.
pub(super) type Written<'t> = Cow<'t, str>;
