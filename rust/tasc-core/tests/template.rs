//! The input in whole prompts.
#![allow(clippy::unwrap_used)] // a test may

use std::fmt::Write as _;

use proptest::prelude::*;
use tasc_core::text::InputTemplate;

fn learn(prompts: &[String]) -> Option<InputTemplate> {
    InputTemplate::learn(&prompts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The input that is found in each prompt, by the template that all of them give.
fn found(prompts: &[String]) -> Vec<Option<&str>> {
    let template = learn(prompts);
    prompts.iter().map(|p| template.as_ref().and_then(|t| t.find(p))).collect()
}

fn some(inputs: &[String]) -> Vec<Option<&str>> {
    inputs.iter().map(|input| Some(input.as_str())).collect()
}

const TASK: &str =
    "You find the intent and the slots of what a traveller says. Answer with JSON and with nothing else.";

fn utterances() -> Vec<String> {
    let cities = ["boston", "denver", "new york", "st. louis"];
    (0..32)
        .map(|k| format!("show me flights from {} to {}", cities[k % 4], cities[k / 4 % 4]))
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
        .map(|(k, text)| format!("{text} on day {k}"))
        .collect()
}

fn examples(first: usize, count: usize) -> String {
    (first..first + count).fold(String::new(), |mut text, k| {
        write!(text, "Input: leave at {k} from nowhere\nOutput: {{\"intent\": \"flight\", \"time\": \"{k}\"}}\n\n")
            .unwrap();
        text
    })
}

#[test]
fn the_same_examples_in_every_prompt() {
    let inputs = utterances();
    let prompts: Vec<String> =
        inputs.iter().map(|input| format!("{TASK}\n\n{}Input: {input}\nOutput:", examples(0, 8))).collect();
    assert_eq!(found(&prompts), some(&inputs), "the words that all inputs share stay");
    let template = learn(&prompts).unwrap();
    assert!(!template.repeated && template.before.starts_with(TASK) && template.after == "\nOutput:");
}

#[test]
fn other_examples_in_every_prompt() {
    let inputs = utterances();
    for (head, count) in [(format!("{TASK}\n\n"), 1), (format!("{TASK}\n\n"), 5), (String::new(), 3)] {
        let prompt =
            |(k, input): (usize, &String)| format!("{head}{}Input: {input}\nOutput:", examples(100 * k, count));
        let prompts: Vec<String> = inputs.iter().enumerate().map(prompt).collect();
        let template = learn(&prompts).unwrap();
        assert!(template.repeated);
        assert_eq!((template.before.as_str(), template.after.as_str()), ("Input:", "\nOutput:"));
        assert_eq!(found(&prompts), some(&inputs));
    }
}

#[test]
fn examples_without_a_cue_at_the_end_and_in_tags() {
    let inputs = utterances();
    let open: Vec<String> =
        inputs.iter().enumerate().map(|(k, input)| format!("{TASK}\n{}Input: {input}", examples(9 * k, 3))).collect();
    assert_eq!(found(&open), some(&inputs));
    let tagged = |(k, input): (usize, &String)| {
        format!("{TASK}\n<input>\nleave at {k}\n</input>\n<json>\n{{}}\n</json>\n<input>\n{input}\n</input>\n<json>")
    };
    let tagged: Vec<String> = inputs.iter().enumerate().map(tagged).collect();
    assert_eq!(found(&tagged), some(&inputs));
}

/// What differs from prompt to prompt is input, whatever it looks like.
#[test]
fn what_is_not_cut() {
    let inputs = utterances();
    assert_eq!(learn(&inputs), None, "inputs that begin alike");
    let schema =
        |k: usize| format!("CREATE TABLE t{} (id INT, city_{} TEXT, PRIMARY KEY (id));\n", k % 3, k % 3).repeat(9);
    let schemas: Vec<String> =
        inputs.iter().enumerate().map(|(k, input)| format!("Schema:\n{}Question: {input}\nSQL:", schema(k))).collect();
    assert_eq!(learn(&schemas), None, "schemas of three databases");
    let sql = "Write SQL for the database below. Use only the tables that it has, and write the query in one line.\n\n";
    let schemas: Vec<String> = schemas.iter().map(|prompt| format!("{sql}{prompt}")).collect();
    for (prompt, found) in schemas.iter().zip(found(&schemas)) {
        assert_eq!(
            found.unwrap(),
            prompt.strip_prefix(sql).unwrap().strip_prefix("Schema:\n").unwrap().strip_suffix("\nSQL:").unwrap()
        );
    }
    let shots = "Question: how many are there?\nSQL: SELECT COUNT(*) FROM t\n";
    let schemas: Vec<String> = inputs
        .iter()
        .enumerate()
        .map(|(k, input)| format!("{sql}{}{shots}Question: {input}\nSQL:", schema(k)))
        .collect();
    assert!(
        schemas
            .iter()
            .zip(found(&schemas))
            .all(|(p, found)| found.is_none_or(|text| text.contains("CREATE TABLE") && p.contains(text)))
    );
    let papers: Vec<String> =
        inputs.iter().map(|input| format!("Title: {input}\nText: {input} again\nTitle: {input} b\nText: x")).collect();
    assert_eq!(learn(&papers), None, "records in the input");
    assert_eq!(learn(&inputs[..7].iter().map(|i| format!("{TASK}\n{i}")).collect::<Vec<_>>()), None, "too few");
}

#[test]
fn instructions_after_the_input() {
    let inputs = utterances();
    for head in ["", "Text: "] {
        // the head occurs in the inputs, too
        let inputs: Vec<String> = inputs.iter().enumerate().map(|(k, i)| format!("{k}: {i} Text: again")).collect();
        let prompts: Vec<String> = inputs.iter().map(|input| format!("{head}{input}\n\n{TASK} Be brief.")).collect();
        let template = learn(&prompts).unwrap();
        assert_eq!((template.before.as_str(), template.after), (head, format!("\n\n{TASK} Be brief.")));
        assert_eq!(found(&prompts), some(&inputs));
    }
}

#[test]
fn other_prompts() {
    let inputs = utterances();
    let before = format!("{TASK}\n\n{}", examples(0, 4));
    let mut prompts: Vec<String> = inputs.iter().map(|input| format!("{before}Input: {input}\nOutput:")).collect();
    prompts[7] = "hello".into(); // a stray
    let template = learn(&prompts).unwrap();
    assert_eq!(template.find("hello"), None);
    assert_eq!(template.input("hello"), "hello");
    assert_eq!(template.find(""), None);
    assert_eq!(template.find(&prompts[3]), Some(inputs[3].as_str()));
    assert_eq!(
        template.find(&format!("Be brief.\n{}\nOutput:\n", prompts[3].strip_suffix("\nOutput:").unwrap())),
        Some(inputs[3].as_str())
    );
    assert_eq!(template.find(&format!("{before}Input: \nOutput:")), None, "no input");
    assert_eq!(template.find(&format!("{before}Please book a room")), Some("Please book a room"));
}

/// Words of letters, marks and characters of several scripts.
fn text(words: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec("[a-c]{1,3}|[0-9]{1,2}|[äß]{1,2}|[北京]{1,2}|[.,:;?!\"'<>()]{1,2}|a\n", words)
        .prop_map(|w| w.join(" "))
}

proptest! {
    /// Whatever surrounds inputs, a cut is not inside a word of an input, and what is cut off is shared.
    #[test]
    fn cuts_are_between_words(before in text(0..40), after in text(0..30), inputs in prop::collection::btree_set(text(1..8), 8..20)) {
        let inputs: Vec<String> = inputs.into_iter().collect();
        let prompts: Vec<String> = inputs.iter().map(|input| format!("{before} {input} {after}")).collect();
        let Some(template) = learn(&prompts) else { return Ok(()) };
        for prompt in &prompts {
            let Some(found) = template.find(prompt) else { continue };
            let start = found.as_ptr() as usize - prompt.as_ptr() as usize;
            for at in [start, start + found.len()] {
                let (left, right) = (prompt[..at].chars().next_back(), prompt[at..].chars().next());
                let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
                prop_assert!(!(inside(left) && inside(right)), "{:?} in {:?}", found, prompt);
            }
        }
    }

    /// An input that differs from all others in its first and last word is found as it is.
    #[test]
    fn inputs_are_found(count in 8..30usize, before in "([a-z]{1,4} ){17,60}", after in "( [a-z]{1,4}){0,5}", middle in text(0..9)) {
        let inputs: Vec<String> = (0..count).map(|k| format!("w{k:02} {middle} {k:02}w")).collect();
        let prompts: Vec<String> = inputs.iter().map(|i| format!("{before}\nInput: {i}\nOutput:{after}")).collect();
        let template = learn(&prompts).unwrap();
        for (prompt, input) in prompts.iter().zip(&inputs) {
            prop_assert_eq!(template.find(prompt), Some(input.as_str()));
            prop_assert_eq!(template.find(input), None);
            prop_assert_eq!(template.input(template.input(prompt)), input.as_str());
        }
    }

    /// Any template finds something in the prompt, or nothing; it never panics.
    #[test]
    fn any_template(before in "\\PC{0,30}", after in "\\PC{0,5}", repeated: bool, prompt in "\\PC{0,60}") {
        let template = InputTemplate { before, after, repeated };
        prop_assert!(prompt.contains(template.input(&prompt)));
    }
}
