//! The shape of the crate, read from its sources: imports go downwards, no two files import each other, and no two
//! types share a name.
#![allow(clippy::unwrap_used)] // a test may

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folders and files of `src` from the lowest layer to the highest. What a layer imports lies below it, or in the same
/// folder.
const LAYERS: [&[&str]; 9] = [
    &["format", "error", "token", "pool", "fork", "integer"],
    &["text"],
    &["corpus"],
    &["index", "count", "merge"],
    &["mixture"],
    &["online"],
    &["draft", "fit"],
    &["task"],
    &["lib"],
];

/// A source file: its module path, such as `index::ngrams` (`index` for `index/mod.rs`), and its code.
struct Source {
    module: String,
    code: String,
}

/// All source files, without comments, text in quotes, and tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(&root).unwrap().with_extension("");
                let parts: Vec<&str> = relative.iter().map(|p| p.to_str().unwrap()).filter(|p| *p != "mod").collect();
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { module: parts.join("::"), code: code(&text) });
            }
        }
    }
    assert!(found.len() > 50, "{} files were found", found.len());
    found
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let line = |l: &str| l.split("//").next().unwrap_or("").split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every path that the code names from `crate` or `super` on, groups in braces written out.
fn paths(source: &Source) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in source.code.match_indices(start) {
            let before = source.code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue; // the end of a longer path or name
            }
            let mut base: Vec<String> = Vec::new();
            if start == "super::" {
                base = source.module.split("::").map(str::to_owned).collect();
                base.pop();
            }
            read(&source.code[at + start.len()..], &base, &mut found);
        }
    }
    found
}

/// Reads one path, or a group of them, that goes on from `base`; returns the bytes read.
fn read(code: &str, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let (mut path, mut at) = (base.to_vec(), 0);
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if code[at..].starts_with('{') {
            at += 1;
            while !code[at..].trim_start().starts_with('}') {
                at += read(&code[at..], &path, found);
                let rest = code[at..].trim_start();
                at = code.len() - rest.trim_start_matches(|c: char| c != ',' && c != '}').len();
                at += usize::from(code[at..].starts_with(','));
            }
            return at + code[at..].find('}').unwrap() + 1;
        }
        let len = code[at..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len() - at);
        let name = &code[at..at + len];
        at += len;
        match name {
            "super" => drop(path.pop()),
            "self" | "" => {}
            _ => path.push(name.into()),
        }
        if !code[at..].starts_with("::") {
            found.push(path);
            return at;
        }
        at += 2;
    }
}

/// The file that a path leads to: of a name that a `mod.rs` hands on, the file it comes from.
fn target(path: &[String], modules: &BTreeSet<&str>, handed_on: &BTreeMap<(String, String), String>) -> Option<String> {
    let len = (1..=path.len()).rev().find(|&n| modules.contains(path[..n].join("::").as_str()));
    let module = len.map_or_else(String::new, |n| path[..n].join("::"));
    let name = path.get(len.unwrap_or(0)).cloned().unwrap_or_default();
    let from = handed_on.get(&(module.clone(), name));
    from.cloned().or(Some(module)).filter(|m| !m.is_empty())
}

/// Every import: (importing file, imported file).
fn imports(sources: &[Source]) -> BTreeSet<(String, String)> {
    let modules: BTreeSet<&str> = sources.iter().map(|s| s.module.as_str()).collect();
    let mut handed_on = BTreeMap::new();
    for Source { module, code } in sources {
        let here = if module == "lib" { String::new() } else { module.clone() };
        for (at, _) in code.match_indices("use ") {
            let mut named = Vec::new();
            let base: Vec<String> = here.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect();
            read(&code[at + 4..], &base, &mut named);
            for path in named {
                let Some((name, from)) = path.split_last() else { continue };
                if modules.contains(from.join("::").as_str()) {
                    handed_on.entry((here.clone(), name.clone())).or_insert_with(|| from.join("::"));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for source in sources {
        for path in paths(source) {
            if let Some(to) = target(&path, &modules, &handed_on).filter(|to| *to != source.module) {
                found.insert((source.module.clone(), to));
            }
        }
    }
    assert!(found.len() > 100, "{} imports were found", found.len());
    found
}

fn layer(module: &str) -> usize {
    let folder = module.split("::").next().unwrap_or(module);
    let found = LAYERS.iter().position(|layer| layer.contains(&folder));
    found.unwrap_or_else(|| panic!("{folder} has no layer; add it to LAYERS"))
}

#[test]
fn imports_go_downwards() {
    let folder = |module: &str| module.split("::").next().unwrap_or(module).to_owned();
    let same_bottom = |a: &str, b: &str| layer(a) == 0 && layer(b) == 0;
    let upward = |(from, to): &&(String, String)| {
        folder(from) != folder(to) && layer(to) >= layer(from) && !same_bottom(from, to)
    };
    let all = imports(&sources());
    let wrong: Vec<_> = all.iter().filter(upward).collect();
    assert!(wrong.is_empty(), "upward imports: {wrong:#?}");
}

#[test]
fn no_files_import_each_other() {
    let mut left = imports(&sources());
    loop {
        let (from, to): (BTreeSet<String>, BTreeSet<String>) = left.iter().cloned().unzip();
        let before = left.len();
        left.retain(|i| from.contains(&i.1) && to.contains(&i.0)); // what imports nothing, or is not imported, is in no circle
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "these lie on circles: {left:#?}");
}

#[test]
fn type_names_are_unique() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Source { module, code } in sources() {
        for line in code.lines() {
            let words: Vec<&str> =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
            let kind = words.iter().position(|w| ["struct", "enum", "trait", "union"].contains(w));
            let alias = words.iter().position(|w| *w == "type").filter(|_| !line.starts_with(' '));
            if let Some(name) =
                kind.or(alias).and_then(|at| words.get(at + 1)).filter(|n| n.starts_with(char::is_uppercase))
            {
                defined.entry((*name).into()).or_default().push(module.clone());
            }
        }
    }
    assert!(defined.contains_key("Drafter") && defined.len() > 100, "{} types were found", defined.len());
    let twice: Vec<_> = defined.iter().filter(|(_, modules)| modules.len() > 1).collect();
    assert!(twice.is_empty(), "defined more than once: {twice:#?}");
}
