//! Finds the input in whole prompts: the part that is neither instructions nor examples.

use serde::{Deserialize, Serialize};

use super::words;

/// Fewest prompts from which a template is learned.
pub const MIN_PROMPTS: usize = 8;

/// Most prompts that a template is learned from.
pub const MAX_PROMPTS: usize = 1024;

/// One prompt in so many may be without the template.
const OUTLIERS: usize = 20;

/// Words that inputs may share by chance: "show me flights from".
const MAX_CHANCE_WORDS: usize = 16;

/// Bytes of these words, at most.
const MAX_CHANCE_BYTES: usize = 1024;

/// Bytes of a label such as `Input:`.
const MAX_LABEL: usize = 40;

/// Prompts whose labels are tried.
const TRIED: usize = 4;

/// What surrounds the input in the prompts of a task.
///
/// # Examples
///
/// ```
/// use tasc_core::text::InputTemplate;
///
/// let shared = "You are given a question about flights. Answer with SQL, and with nothing else, in one line.";
/// let prompts: Vec<String> = (1..9).map(|k| format!("{shared}\nQuestion: which leave at {k}?\nSQL:")).collect();
/// let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
/// let template = InputTemplate::learn(&prompts).unwrap();
/// assert_eq!(template.after, "\nSQL:");
/// assert_eq!(template.find(prompts[0]), Some("which leave at 1?"));
/// assert_eq!(template.find("which leave at 1?"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputTemplate {
    /// Text before the input: what prompts share at their start. If `repeated`, the label before the input.
    pub before: String,
    /// Text after the input: what prompts share at their end.
    pub after: String,
    /// Whether `before` is a label that stands before the input of every example too.
    pub repeated: bool,
}

impl InputTemplate {
    /// Learns what surrounds the input from distinct prompts of a task; `None` if they share too little.
    ///
    /// A template is learned in two cases, if 19 in 20 prompts match it:
    ///
    /// - Prompts share more than 16 words at their start or at their end. The cut is at the last line break, punctuation
    ///   mark or label that they share, so inputs keep words with which all of them begin.
    /// - Prompts hold examples of one form, whichever they are: a label such as `Input:`, then one such as `Output:`. The
    ///   input follows the last `Input:`. What stands before the first example must be the same in all prompts.
    ///
    /// # Complexity
    /// O(text · log prompts).
    #[must_use]
    pub fn learn(prompts: &[&str]) -> Option<Self> {
        if prompts.len() < MIN_PROMPTS {
            return None;
        }
        let needed = prompts.len() - prompts.len() / OUTLIERS;
        let mut sorted = prompts.to_vec();
        sorted.sort_unstable();
        let prefix = shared(&sorted, needed, |a, b| &a[..common_prefix(a, b)]);
        sorted.sort_unstable_by(|a, b| a.bytes().rev().cmp(b.bytes().rev()));
        let suffix = shared(&sorted, needed, |a, b| &a[a.len() - common_suffix(a, b)..]);
        let before = prefix.get(..input_start(prefix)).unwrap_or("").trim_start();
        let after = suffix.get(input_end(suffix)..).unwrap_or("").trim_end();
        let mut tried = prompts.iter().step_by(prompts.len().div_ceil(TRIED));
        let label = tried.find_map(|tried| repeated_label(tried, prompts, needed));
        let repeated = label.map(|label| Self { before: label.into(), after: after.into(), repeated: true });
        let fixed = Self { before: before.into(), after: after.into(), repeated: false };
        let fixed = (is_long(before) || is_long(after)).then_some(fixed);
        match (&repeated, &fixed) {
            (Some(a), Some(b)) if prompts.iter().filter(|p| a.find(p) == b.find(p)).count() >= needed => fixed,
            _ => repeated.or(fixed),
        }
    }

    /// Returns the input of a prompt; `None` if the prompt does not match the template.
    ///
    /// Text before a long `before` is skipped, such as a system message. A prompt that leaves `before` in its second half
    /// matches it up to there.
    ///
    /// # Complexity
    /// O(prompt).
    #[must_use]
    pub fn find<'t>(&self, prompt: &'t str) -> Option<&'t str> {
        let start = if self.repeated { self.after_last_label(prompt)? } else { self.after_shared(prompt)? };
        let rest = prompt.get(start..)?;
        let end = if self.after.is_empty() { None } else { rest.rfind(&self.after) };
        if end.is_none() && !self.repeated && !is_long(&self.before) {
            return None;
        }
        rest.get(..end.unwrap_or(rest.len())).filter(|input| !input.trim().is_empty())
    }

    /// Returns the input of a prompt; all of the prompt if it does not match the template.
    #[must_use]
    pub fn input<'t>(&self, prompt: &'t str) -> &'t str {
        self.find(prompt).unwrap_or(prompt)
    }

    fn after_last_label(&self, prompt: &str) -> Option<usize> {
        if self.before.trim().is_empty() {
            return None; // only in a damaged file
        }
        let mut found = prompt.rmatch_indices(&self.before).map(|(at, _)| at);
        let at = found.find(|&at| begins_line(prompt, at))? + self.before.len();
        Some(at + blank(prompt.get(at..)?))
    }

    fn after_shared(&self, prompt: &str) -> Option<usize> {
        let begin = blank(prompt);
        let text = prompt.get(begin..)?;
        if !is_long(&self.before) {
            return text.starts_with(&self.before).then_some(begin + self.before.len());
        }
        if let Some(at) = prompt.rfind(&self.before) {
            return Some(at + self.before.len());
        }
        let kept = whole_words(text.get(..common_prefix(text, &self.before))?);
        (2 * kept >= self.before.len()).then_some(begin + kept)
    }
}

/// Returns the longest text that so many neighbours of sorted texts share.
fn shared<'t>(sorted: &[&'t str], needed: usize, common: impl Fn(&'t str, &'t str) -> &'t str) -> &'t str {
    let all = sorted.windows(needed.max(1)).map(|texts| common(texts[0], texts[texts.len() - 1]));
    all.max_by_key(|text| text.len()).unwrap_or("")
}

/// Bytes that two texts share at their start, up to a whole character.
fn common_prefix(a: &str, b: &str) -> usize {
    let shared = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=shared).rev().find(|&at| a.is_char_boundary(at) && b.is_char_boundary(at)).unwrap_or(0)
}

/// Bytes that two texts share at their end, from a whole character on.
fn common_suffix(a: &str, b: &str) -> usize {
    let shared = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    (0..=shared).rev().find(|&n| a.is_char_boundary(a.len() - n) && b.is_char_boundary(b.len() - n)).unwrap_or(0)
}

/// Whether a text is longer than what inputs share by chance. O(1).
fn is_long(text: &str) -> bool {
    let mut found = Vec::new();
    if text.len() <= MAX_CHANCE_BYTES {
        words::split(text, &mut found);
    }
    text.len() > MAX_CHANCE_BYTES || found.len() > MAX_CHANCE_WORDS
}

/// Bytes of white space with which a text begins.
fn blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Bytes up to the end of the last word that is whole, whatever follows the text.
fn whole_words(text: &str) -> usize {
    text.trim_end_matches(char::is_alphanumeric).len()
}

/// Where inputs begin, in what prompts share at their start: after the last mark that ends a line, a sentence or a label,
/// if it is among the last 16 words. Otherwise at the end of a long text, and at the start of a short one.
fn input_start(prefix: &str) -> usize {
    let mut found = Vec::new();
    words::split(prefix, &mut found);
    let from = found.len().checked_sub(MAX_CHANCE_WORDS).map_or(0, |first| found[first].start as usize);
    let marked = (from..=prefix.len()).rev().filter(|&at| prefix.is_char_boundary(at)).find(|&at| {
        let (before, after) = prefix.split_at(at);
        after.chars().next().is_none_or(|c| !c.is_whitespace()) && ends_part(before)
    });
    marked.unwrap_or(if found.len() > MAX_CHANCE_WORDS { whole_words(prefix) } else { 0 })
}

/// Whether a text ends with the end of a line, a sentence, a label or a tag, or with an opening quotation mark.
fn ends_part(text: &str) -> bool {
    let bare = text.trim_end();
    let Some(mark) = bare.chars().next_back() else { return text.contains('\n') };
    if text[bare.len()..].contains('\n') {
        return true;
    }
    match mark {
        '>' | ']' | '}' | ')' | '"' | '“' | '«' | '「' | '：' | '。' | '！' | '？' | '*' | '#' | '|' | '`' => {
            true
        }
        ':' | '.' | '!' | '?' | ';' => bare.len() < text.len(),
        _ => false,
    }
}

/// Where inputs end, in what prompts share at their end: before the first line break, bracket or quotation mark among the
/// first 16 words. Otherwise at the start of a long text, and at the end of a short one.
fn input_end(suffix: &str) -> usize {
    let mut found = Vec::new();
    words::split(suffix, &mut found);
    let until = found.get(MAX_CHANCE_WORDS - 1).map_or(suffix.len(), |word| word.end as usize);
    let marked = suffix.char_indices().take_while(|(at, _)| *at <= until).find_map(|(at, c)| {
        let rest = &suffix[at..];
        let begins = rest[..blank(rest)].contains('\n') || matches!(c, '<' | '[' | '{' | '"' | '”' | '»' | '」' | '`');
        begins.then_some(at)
    });
    let whole = || suffix.len() - suffix.trim_start_matches(char::is_alphanumeric).len();
    marked.unwrap_or_else(|| if found.len() > MAX_CHANCE_WORDS { whole() } else { suffix.len() })
}

/// Returns the label before the input of prompts that hold examples of one form, by the labels of one of the prompts.
///
/// In most prompts, this label and another take turns, from the label before the first example's input to the one before
/// the prompt's. A turn of the other may end the prompt. The text before the first is the same in all.
fn repeated_label<'t>(tried: &'t str, prompts: &[&str], needed: usize) -> Option<&'t str> {
    let labels: Vec<(usize, &str)> = labels(tried).collect();
    let last = |(at, label): &&(usize, &str)| labels.iter().all(|other| other.1 != *label || other.0 <= *at);
    let of_input = labels.iter().filter(last).map(|found| found.1);
    let takes_turns = |input: &&str| {
        let first = labels.iter().find(|found| found.1 == *input);
        let head = first.and_then(|found| tried.get(..found.0)).unwrap_or("");
        let outputs = labels.iter().map(|found| found.1);
        let mut pairs = outputs.filter(|output| output != input && alternate(tried, input, output));
        pairs.any(|output| {
            let matching = prompts.iter().filter(|p| p.starts_with(head) && alternate(p, input, output));
            matching.count() >= needed
        })
    };
    of_input.into_iter().find(takes_turns)
}

/// Whether two labels take turns in a prompt: `input`, `output`, `input`, …, `input`, and perhaps `output` at its end.
fn alternate(prompt: &str, input: &str, output: &str) -> bool {
    let found: Vec<(usize, &str)> = labels(prompt).filter(|(_, label)| *label == input || *label == output).collect();
    let take_turns = found.iter().enumerate().all(|(k, (_, label))| *label == if k % 2 == 0 { input } else { output });
    let ends = |&(at, label): &(usize, &str)| label == input || prompt[at + label.len()..].trim().is_empty();
    take_turns && found.len() > 2 && found.last().is_some_and(ends)
}

/// Labels with which the lines of a text begin, and where: `Input:`, `<input>`, `[input]`, `### Input`.
fn labels(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = at + blank(line);
        at += line.len();
        label(line.trim()).map(|label| (begin, label))
    })
}

fn label(line: &str) -> Option<&str> {
    let end = match line.chars().next()? {
        '#' => line.len(),
        '<' => line.find('>')? + 1,
        '[' => line.find(']')? + 1,
        _ => line.find(':').filter(|&at| line[at + 1..].chars().next().is_none_or(char::is_whitespace))? + 1,
    };
    let label = line.get(..end.min(MAX_LABEL + 1))?;
    (end <= MAX_LABEL && label.contains(char::is_alphanumeric)).then_some(label)
}

/// Whether a line begins at a byte of a text, white space aside.
fn begins_line(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or("").trim_end_matches([' ', '\t']);
    before.is_empty() || before.ends_with('\n')
}
