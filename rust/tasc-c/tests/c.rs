//! C programs with the header and the library. They are left out, with a line that says so, where no compiler is found;
//! `CC` and `CXX` name one.
#![allow(clippy::unwrap_used)] // a test may

mod recorded;

use std::path::{Path, PathBuf};
use std::process::Command;

use recorded::{build, record, write};

/// A compiler that runs; `None`, and a line of output, where there is none.
fn compiler(variable: &str, usual: &str) -> Option<String> {
    let name = std::env::var(variable).unwrap_or_else(|_| usual.into());
    let runs = Command::new(&name).arg("--version").output().is_ok_and(|output| output.status.success());
    if !runs {
        eprintln!("skipped: no compiler {name} was found; {variable} names another one");
    }
    runs.then_some(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folder of the libraries that cargo built for this test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Runs a program and returns its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}{failed}", output.status);
    said.into_owned()
}

/// Compiles a program, with every warning an error, and links it to the shared library.
fn compile(compiler: &str, source: &Path, standard: &str, program: &Path) {
    let libraries = libraries();
    let rpath = format!("-Wl,-rpath,{}", libraries.display());
    let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];
    let mut command = Command::new(compiler);
    command.arg(standard).args(warnings).arg("-I").arg(root().join("include")).arg(source).arg("-o").arg(program);
    run(command.arg("-L").arg(&libraries).arg(rpath).args(["-ltasc", "-pthread"]));
}

#[test]
fn a_c_program_gets_the_drafts_of_the_drafter() {
    let Some(cc) = compiler("CC", "cc") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (index, program) = (build(folder.path()), folder.path().join("replay"));
    compile(&cc, &root().join("tests/replay.c"), "-std=c11", &program);
    for (kind, threads, fixed) in [("shared", "4", true), ("own", "2", false)] {
        let calls = folder.path().join(kind);
        std::fs::write(&calls, write(&record(&index, 5, 400, fixed, !fixed))).unwrap();
        let said = run(Command::new(&program).arg(&index).arg(&calls).args([kind, threads]));
        assert_eq!(said, format!("tasc {}: {threads} threads returned what was recorded\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_program_of_the_docs_drafts() {
    let Some(cc) = compiler("CC", "cc") else { return };
    let page = root().join("../../docs/how-to/c.md");
    let page = std::fs::read_to_string(page).unwrap();
    let source = page.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("minimal.c"), folder.path().join("minimal"));
    std::fs::write(&file, source).unwrap();
    compile(&cc, &file, "-std=c11", &program);
    let said = run(Command::new(&program).arg(build(folder.path())).arg("turn on the garden to 5"));
    let facts: Vec<usize> = said.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let &[tokens, steps] = &facts[..] else { panic!("{said}") };
    assert!(tokens > 30 && steps * 4 < tokens, "{said}");
}

#[test]
fn the_header_is_c_plus_plus_as_well() {
    let Some(cxx) = compiler("CXX", "c++") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("version.cpp");
    std::fs::write(&file, "#include <cstdio>\n#include <tasc.h>\nint main() { std::puts(tasc_version()); }\n").unwrap();
    let program = folder.path().join("version");
    compile(&cxx, &file, "-std=c++11", &program);
    assert_eq!(run(&mut Command::new(&program)).trim(), env!("CARGO_PKG_VERSION"));
}
