//! Latency of finding the 16 nearest rows, p50 and p99, and the build rate: `retrieval_latency [ROWS]`.
//!
//! Indexes synthetic inputs of 12 to 20 words, then asks for held-out inputs of the same task. A query is timed from its
//! text. Recall is measured against all rows' cosines for some of the queries.
use std::time::Instant;

use tasc_benches::Random;
use tasc_core::index::inputs::terms;
use tasc_core::index::inputs::{InputArrays, Inputs, InputsBuilder};
use tasc_core::index::nearest::{NearestScratch, Neighbour};
use tasc_core::text::words::split;

const QUERIES: usize = 3000;
const NEIGHBOURS: usize = 16;

fn main() {
    let rows = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(1_000_000);
    let mut task = Task::new(7);
    let inputs: Vec<String> = (0..rows).map(|_| task.input()).collect();
    let queries: Vec<String> = (0..QUERIES).map(|_| task.input()).collect();
    let begin = Instant::now();
    let mut builder = InputsBuilder::new();
    for (text, document) in inputs.iter().zip(0..) {
        builder.push(text, document, 1).expect("in range");
    }
    let pushed = begin.elapsed().as_secs_f64();
    let built = builder.build();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{rows} rows: build {seconds:.2} s (of which words {pushed:.2}), {:.1} bytes per row",
        per_row(&built, rows)
    );
    ask(built.view(), &queries);
}

fn per_row(built: &InputArrays, rows: usize) -> f64 {
    let words = built.postings.len() + built.norms.len() + built.row_documents.len();
    (4 * words + 8 * (built.terms.len() + built.term_starts.len())) as f64 / rows as f64
}

fn ask(inputs: Inputs<'_>, queries: &[String]) {
    let (mut scratch, mut found, mut words, mut keys) = (NearestScratch::default(), vec![], vec![], vec![]);
    let mut ns: Vec<u64> = Vec::new();
    let (mut hits, mut asked) = (0usize, 0usize);
    for (k, query) in queries.iter().enumerate() {
        let t = Instant::now();
        split(query, &mut words);
        terms(&words, &mut keys);
        inputs.nearest(&keys, NEIGHBOURS, &mut scratch, &mut found);
        ns.push(u64::try_from(t.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if k % 30 == 0 {
            let (hit, of) = recalled(inputs, &keys, &found);
            (hits, asked) = (hits + hit, asked + of);
        }
    }
    ns.sort_unstable();
    let q = |p: usize| ns[(ns.len() - 1) * p / 100] as f64 / 1e3;
    println!("query: p50 {:.1} µs, p90 {:.1}, p99 {:.1}, max {:.1}", q(50), q(90), q(99), q(100));
    println!("recall of the nearest {NEIGHBOURS}: {:.3}", hits as f64 / asked as f64);
}

/// How many of the neighbours are as near as the nearest ones by all postings, and how many of those there are.
fn recalled(inputs: Inputs<'_>, keys: &[u64], found: &[Neighbour]) -> (usize, usize) {
    let mut cosines = vec![0f32; inputs.rows()];
    let mut norm = 0f32;
    for &key in keys {
        let square = inputs.idf(key).powi(2);
        norm += square;
        let Ok(at) = inputs.terms.binary_search(&key) else { continue };
        let end = |k: usize| usize::try_from(inputs.term_starts[k]).expect("in memory");
        for &row in &inputs.postings[end(at)..end(at + 1)] {
            cosines[row as usize] += square;
        }
    }
    for (cosine, row_norm) in cosines.iter_mut().zip(inputs.norms) {
        *cosine /= norm.sqrt() * row_norm;
    }
    cosines.sort_unstable_by(|a, b| b.total_cmp(a));
    let last = cosines.get(NEIGHBOURS - 1).copied().unwrap_or(0.0);
    let near = cosines.iter().take(NEIGHBOURS).filter(|&&c| c > 0.0).count();
    (found.iter().filter(|f| f.similarity >= last - 1e-5).count(), near)
}

/// Makes inputs of one synthetic task: templates with slots over a Zipf vocabulary, and free words.
struct Task {
    templates: Vec<Vec<Piece>>,
    random: Random,
}

enum Piece {
    Fixed(u32),
    Value { slot: u32, values: u32 },
    Free,
}

impl Task {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let piece = |random: &mut Random| match random.below(10) {
            0..5 => Piece::Fixed(random.zipf(3000)),
            5..8 => Piece::Value { slot: random.below(40), values: 5000 },
            _ => Piece::Free,
        };
        let templates = (0..500).map(|_| (0..12 + random.below(9)).map(|_| piece(&mut random)).collect()).collect();
        Self { templates, random }
    }

    fn input(&mut self) -> String {
        let which = self.random.zipf(500) as usize;
        let random = &mut self.random;
        let word = |piece: &Piece| match *piece {
            Piece::Fixed(word) => format!("w{word}"),
            Piece::Value { slot, values } => format!("v{slot}x{}", random.zipf(values)),
            Piece::Free => format!("w{}", random.zipf(50_000)),
        };
        self.templates[which].iter().map(word).collect::<Vec<_>>().join(" ")
    }
}
