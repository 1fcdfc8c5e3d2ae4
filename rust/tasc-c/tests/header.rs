//! The header in the repository has the comments, numbers and names of the sources. It is written by
//! `cbindgen --config cbindgen.toml --output include/tasc.h`, in this folder.
#![allow(clippy::unwrap_used)] // a test may

use std::path::Path;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Comments of what is exported, line by line, and under each comment the names that its item has in C.
fn exported(source: &str) -> Vec<String> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    let mut arguments = false;
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(format!("//{text}"));
            continue;
        }
        let function = line.split_once(r#"extern "C" fn "#).map(|(_, rest)| rest);
        let member = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")).map(|(name, _)| name);
        let status = line.strip_prefix("Tasc").and_then(|rest| rest.split_once(" = ")).map(|(_, number)| number);
        if let Some(rest) = function {
            found.append(&mut comment);
            found.push(format!("{}(", rest.split('(').next().unwrap()));
            arguments = !rest.contains(')');
            let inside = rest.split_once('(').unwrap().1.split(')').next().unwrap();
            found.extend(inside.split(", ").filter_map(|one| one.split_once(": ")).map(|(name, _)| name.into()));
        } else if arguments {
            arguments = !line.starts_with(')');
            found.extend(line.split_once(": ").map(|(name, _)| name.to_owned()));
        } else if let Some(name) = member {
            found.append(&mut comment);
            found.push(format!("{name};"));
        } else if let Some(number) = status {
            found.append(&mut comment);
            found.push(format!(" = {number}"));
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

#[test]
fn the_header_is_up_to_date() {
    let (header, source) = (read("include/tasc.h"), read("src/status.rs") + &read("src/interface.rs"));
    let wanted = exported(&source);
    assert!(wanted.len() > 80, "{} lines were found", wanted.len());
    let mut rest = header.as_str();
    for text in wanted {
        let after = rest.split_once(&text).map(|(_, after)| after);
        rest = after.unwrap_or_else(|| panic!("include/tasc.h is old: {text:?} is missing, or not in its place"));
    }
}

#[test]
fn the_introduction_is_the_one_of_the_configuration() {
    let introduction = read("cbindgen.toml").split(r#"""""#).nth(1).unwrap().trim().to_owned();
    assert!(introduction.lines().count() > 20 && read("include/tasc.h").starts_with(&introduction));
}
