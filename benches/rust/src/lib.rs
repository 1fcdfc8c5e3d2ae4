//! The synthetic workload: templates with slots over a Zipf vocabulary.

/// Distinct tokens of the workload.
pub const VOCABULARY: u32 = 32_000;

/// The token that ends every document.
pub const EOS: u32 = VOCABULARY;

/// A small deterministic generator (Steele, Lea, Flood: `SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.bits() % u64::from(limit)).unwrap_or(0)
    }

    /// Zipf-like below `limit`: density falls as 1 / rank.
    pub fn zipf(&mut self, limit: u32) -> u32 {
        let u = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = f64::from(limit + 1).powf(u) - 1.0;
        (rank as u32).min(limit - 1)
    }
}

/// What one place of a template holds.
enum Piece {
    Fixed(Vec<u32>),
    /// One of so many values, each of 1 to 4 tokens.
    Value {
        slot: u64,
        values: u32,
    },
    /// Free text of up to so many tokens.
    Text(u32),
}

/// Makes documents of one synthetic task; the same seed gives the same task and the same documents.
pub struct Workload {
    templates: Vec<Vec<Piece>>,
    random: Random,
}

impl Workload {
    /// A task of 200 templates.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let templates = (0..200u64).map(|t| template(t, &mut random)).collect();
        Self { templates, random }
    }

    /// The next document, about 50 tokens with its EOS.
    pub fn document(&mut self) -> Vec<u32> {
        let count = u32::try_from(self.templates.len()).unwrap_or(1);
        let which = self.random.zipf(count) as usize;
        let mut out = Vec::with_capacity(64);
        for piece in &self.templates[which] {
            match piece {
                Piece::Fixed(tokens) => out.extend(tokens),
                Piece::Value { slot, values } => {
                    let value = self.random.zipf(*values);
                    let mut spelling = Random::new(slot << 32 | u64::from(value));
                    let len = 1 + spelling.below(4);
                    out.extend((0..len).map(|_| spelling.below(VOCABULARY)));
                }
                Piece::Text(longest) => {
                    let len = self.random.below(*longest + 1);
                    out.extend((0..len).map(|_| self.random.zipf(VOCABULARY)));
                }
            }
        }
        out.push(EOS);
        out
    }

    /// Documents of at least `tokens` tokens in all.
    pub fn documents(&mut self, tokens: usize) -> Vec<Vec<u32>> {
        let mut all = Vec::new();
        let mut size = 0;
        while size < tokens {
            let d = self.document();
            size += d.len();
            all.push(d);
        }
        all
    }
}

fn template(t: u64, random: &mut Random) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for k in 0..3 + u64::from(random.below(4)) {
        let len = 2 + random.below(10);
        pieces.push(Piece::Fixed((0..len).map(|_| random.zipf(VOCABULARY)).collect()));
        pieces.push(match random.below(5) {
            0 => Piece::Text(12),
            1 => Piece::Value { slot: t * 16 + k, values: 5000 },
            _ => Piece::Value { slot: u64::from(random.below(40)), values: 300 },
        });
    }
    let len = 1 + random.below(6);
    pieces.push(Piece::Fixed((0..len).map(|_| random.zipf(VOCABULARY)).collect()));
    pieces
}
