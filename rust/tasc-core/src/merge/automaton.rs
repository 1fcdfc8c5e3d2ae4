//! All places where some patterns occur, in one pass (Aho–Corasick over token ids).

use rustc_hash::FxHashMap;

use crate::TokenId;

/// Where nothing has been read.
pub(super) const ROOT: u32 = 0;

const NONE: u32 = u32::MAX;

/// A state per prefix of a pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Automaton {
    edges: FxHashMap<u64, u32>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    depth: u32,
    /// The longest proper suffix that is a prefix too.
    fail: u32,
    /// The pattern that ends here.
    pattern: u32,
    /// The nearest state on the way of `fail` where a pattern ends.
    output: u32,
    /// Whether a pattern goes on from here.
    inner: bool,
}

impl Automaton {
    /// Of patterns that are not empty.
    pub(super) fn new<I: Iterator<Item = TokenId>>(patterns: impl Iterator<Item = I>) -> Self {
        let fresh = |depth| Node { depth, fail: ROOT, pattern: NONE, output: NONE, inner: false };
        let mut this = Self { edges: FxHashMap::default(), nodes: vec![fresh(0)] };
        let mut ways: Vec<(u32, u32, TokenId)> = Vec::new();
        for (pattern, ids) in patterns.enumerate() {
            let mut state = ROOT;
            for id in ids {
                let next = this.nodes.len() as u32;
                let to = *this.edges.entry(edge(state, id)).or_insert(next);
                if to == next {
                    this.nodes[state as usize].inner = true;
                    let depth = this.nodes[state as usize].depth + 1;
                    this.nodes.push(fresh(depth));
                    ways.push((depth, state, id));
                }
                state = to;
            }
            this.nodes[state as usize].pattern = pattern as u32;
        }
        ways.sort_unstable();
        for (depth, from, id) in ways {
            let to = this.edges[&edge(from, id)];
            if depth > 1 {
                let fail = this.step(this.nodes[from as usize].fail, id);
                let behind = this.nodes[fail as usize];
                let output = if behind.pattern == NONE { behind.output } else { fail };
                let node = &mut this.nodes[to as usize];
                (node.fail, node.output) = (fail, output);
            }
        }
        this
    }

    /// The state after one more id.
    pub(super) fn step(&self, mut state: u32, id: TokenId) -> u32 {
        loop {
            match self.edges.get(&edge(state, id)) {
                Some(&to) => return to,
                None if state == ROOT => return ROOT,
                None => state = self.nodes[state as usize].fail,
            }
        }
    }

    /// The patterns that end in a state with their lengths, the longest first.
    pub(super) fn ending(&self, state: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let node = |state: u32| self.nodes.get(state as usize);
        let first =
            if node(state).is_some_and(|n| n.pattern != NONE) { Some(state) } else { node(state).map(|n| n.output) };
        std::iter::successors(first.and_then(node), move |n| node(n.output)).map(|n| (n.pattern, n.depth))
    }

    /// Lengths of the endings of what was read that a pattern may go on from, the longest first.
    pub(super) fn open(&self, state: u32) -> impl Iterator<Item = u32> + '_ {
        let node = |state: u32| Some(&self.nodes[state as usize]).filter(|n| n.depth > 0);
        std::iter::successors(node(state), move |n| node(n.fail)).filter(|n| n.inner).map(|n| n.depth)
    }
}

fn edge(state: u32, id: TokenId) -> u64 {
    u64::from(state) << 32 | u64::from(id)
}
