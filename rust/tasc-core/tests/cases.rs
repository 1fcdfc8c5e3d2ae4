//! Words that an output writes otherwise than the input.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use proptest::prelude::*;
use tasc_core::corpus::{Store, StoreWriter, store::StoreMeta};
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::Fingerprint;
use tasc_core::mixture::TaskData;
use tasc_core::task::{BuildOptions, TaskIndex};
use tasc_core::text::pieces::TokenizationCache;
use tasc_core::text::{Case, Cases, CopyState, Pieces, SourceText};
use toys::Toy;

fn read(text: &str, cases: Cases) -> SourceText {
    let mut source_text = SourceText::default();
    source_text.set_cases(cases);
    source_text.read(text, &Pieces::default(), &mut TokenizationCache::default(), Some(&Toy::Glued)).unwrap();
    source_text
}

/// Which words of the input an output has copied.
fn copied(source_text: &SourceText, output: &str) -> Vec<u32> {
    let mut copy_state = CopyState::default();
    copy_state.reset(source_text.len(), 0.0);
    Toy::Glued.ids(output).iter().for_each(|&t| copy_state.push(source_text, &[], t));
    (0..).take(source_text.len()).filter(|&w| copy_state.is_copied(w)).collect()
}

#[test]
fn cases_change_letters_only() {
    assert_eq!(Case::Upper.apply("new york 7"), Some("NEW YORK 7".into()));
    assert_eq!(Case::Lower.apply("New York"), Some("new york".into()));
    assert_eq!(Case::Title.apply("new YORK o'hare"), Some("New York O'Hare".into()));
    assert_eq!(Case::Title.apply("7 + 5"), None);
    assert_eq!(Case::Upper.apply("straße"), Some("STRASSE".into()));
}

#[test]
fn a_recased_copy_goes_on_over_words_that_have_no_case() {
    let text = "fly to new york 7 am";
    assert_eq!(copied(&read(text, Cases::NONE), "x NEW YORK 7 AM"), [4], "digits have no case");
    let upper = read(text, [Case::Upper].into_iter().collect());
    assert_eq!(copied(&upper, "x NEW YORK 7 AM"), [2, 3, 4, 5]);
    assert_eq!(copied(&upper, "x new york 7 am"), [2, 3, 4, 5], "as it stands it can be copied still");
    assert_eq!(copied(&upper, "x New York"), Vec::<u32>::new());
}

proptest! {
    /// An output that is the input written otherwise copies every word of it, and never runs past its end.
    #[test]
    fn a_whole_input_can_be_copied(text in "[a-zA-Z0-9 ,.]{1,60}", which in 0usize..3) {
        let case = Case::ALL[which];
        let source_text = read(&text, [case].into_iter().collect());
        let words = source_text.len();
        let start = source_text.words().first().map_or(0, |w| w.start as usize);
        let end = source_text.words().last().map_or(0, |w| w.end as usize);
        let output = case.apply(&text[start..end]).unwrap_or_else(|| text[start..end].into());
        prop_assert_eq!(copied(&source_text, &output).len(), words);
        let mut copy_state = CopyState::default();
        copy_state.reset(words, 0.0);
        for token in Toy::Glued.ids(&output) {
            copy_state.push(&source_text, &[], token);
        }
        prop_assert!(copy_state.active().iter().all(|c| source_text.token(c.place).is_some()));
    }

    /// Bits of a file that mean nothing do no harm.
    #[test]
    fn any_bits(bits: u8) {
        prop_assert!(Cases::from_bits(bits).iter().count() <= Case::ALL.len());
    }
}

fn store(folder: &std::path::Path, output: impl Fn(&str) -> String) -> Store {
    let path = folder.join("rows.store");
    let mut writer = StoreWriter::create(&path, &Fingerprint::default(), StoreMeta::default()).unwrap();
    for k in 0..80 {
        let word = format!("{}{}", ["bos", "den", "dal", "aus"][k % 4], (b'a' + (k / 4) as u8) as char);
        let row = (format!("go to {word} now"), format!("<{}>", output(&word)));
        writer.push(&Toy::Glued.ids(&row.1), Some(&row.0), 1).unwrap();
    }
    writer.finish().unwrap();
    Store::open(&path).unwrap()
}

/// Rows decide which ways are offered, and a word that was never seen is then copied that way.
#[test]
fn rows_decide() {
    let folder = tempfile::tempdir().unwrap();
    let build = |store: &Store| {
        let options = BuildOptions { tokenizer: Some(&Toy::Glued), ..BuildOptions::default() };
        TaskIndex::build(store, &folder.path().join("task.tasc"), &options, |_| Ok(())).unwrap()
    };
    let plain = build(&store(folder.path(), str::to_string));
    assert_eq!(plain.view().rows.unwrap().cases(), Cases::NONE);
    let upper = build(&store(folder.path(), str::to_uppercase));
    assert_eq!(upper.view().rows.unwrap().cases(), [Case::Upper].into_iter().collect());
    let options = DrafterOptions { tokenizer: Some(std::sync::Arc::new(Toy::Glued)), ..DrafterOptions::default() };
    let drafter = Drafter::new(Some(std::sync::Arc::new(upper)), options).unwrap();
    let mut request = drafter.start(&[], Some("go to quimper now")).unwrap();
    drafter.update(&mut request, &Toy::Glued.ids("<QU"));
    let draft = drafter.draft(&mut request, 16, &CostCurve::linear(0.001).unwrap());
    assert_eq!(draft.tokens[..5], Toy::Glued.ids("IMPER")[..]);
}

/// Everything that an index holds, and served rows, make the index that all rows would have made.
#[test]
fn an_index_gives_its_store_back() {
    use tasc_core::corpus::{OnlineRow, WriteAheadLog};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task.tasc");
    let options = BuildOptions { tokenizer: Some(&Toy::Glued), ..BuildOptions::default() };
    let original = store(folder.path(), str::to_uppercase);
    let index = TaskIndex::build(&original, &path, &options, |_| Ok(())).unwrap();
    let served = [OnlineRow { input: "go on".into(), output: Toy::Glued.ids("<ON>"), ..OnlineRow::default() }];
    let back = index.to_store(&folder.path().join("back.store"), &served, || Ok(())).unwrap();
    assert_eq!(back.num_inputs(), original.num_inputs() + 1);
    assert_eq!(back.num_documents(), original.num_documents() + 1);
    for row in 0..original.num_inputs() {
        let (a, b) = (original.input(row).unwrap(), back.input(row).unwrap());
        assert_eq!((a.text, a.weight), (b.text, b.weight));
        let output = |s: &Store, d: u32| s.document(d as usize).unwrap().to_vec();
        assert_eq!(output(&original, a.document), output(&back, b.document));
    }
    let log = folder.path().join("task.tasc.served");
    WriteAheadLog::open(&log, &index.file().fingerprint()).unwrap().0.append(&served).unwrap();
    let (new, merged) = index.compact(&[&log], &folder.path().join("new.tasc"), &options, |_| Ok(())).unwrap();
    assert_eq!((new.meta().weight, merged), (index.meta().weight + 1, 1));
    let (again, merged) = new.compact(&[&log], &folder.path().join("again.tasc"), &options, |_| Ok(())).unwrap();
    assert_eq!((again.meta(), merged), (new.meta(), 0), "no row is merged twice");
    let stopped =
        index.compact(&[&log], &folder.path().join("never.tasc"), &options, |_| Err(tasc_core::Error::Stopped));
    assert!(stopped.is_err() && !folder.path().join("never.tasc").exists());
}
