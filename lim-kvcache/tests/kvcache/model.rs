//! Random operations against a model in which every sequence owns a plain vector of its tokens.

use lim_kernels::{DType, Heads, KvLayout, PageExtras, PageSize};
use lim_kvcache::{Error, KvCache, PageTable};
use proptest::prelude::*;

use crate::fake::Fake;

const LAYERS: usize = 3;
const PAGES: usize = 12;

#[derive(Clone, Debug)]
enum Op {
    New,
    /// Grow the sequence by some tokens; the copy of layer `fail` fails, if there is one.
    Grow {
        of: usize,
        by: usize,
        fail: Option<usize>,
    },
    Truncate {
        of: usize,
        keep: f64,
    },
    Fork {
        of: usize,
    },
    Release {
        of: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let of = 0..64usize;
    prop_oneof![
        1 => Just(Op::New),
        6 => (of.clone(), 0..14usize, prop::option::weighted(0.2, 0..LAYERS))
            .prop_map(|(of, by, fail)| Op::Grow { of, by, fail }),
        2 => (of.clone(), 0.0..1.0f64).prop_map(|(of, keep)| Op::Truncate { of, keep }),
        3 => of.clone().prop_map(|of| Op::Fork { of }),
        2 => of.prop_map(|of| Op::Release { of }),
    ]
}

struct World {
    backend: Fake,
    cache: KvCache<Fake>,
    page_size: usize,
    /// Every live sequence, with the stamp of each of its tokens.
    sequences: Vec<(PageTable, Vec<u32>)>,
    next_stamp: u32,
}

impl World {
    fn new(page_size: usize) -> Self {
        let mut backend = Fake { copies_left: None };
        let layout = KvLayout {
            heads: Heads::new(2, 1, 2).expect("valid"),
            page_size: PageSize::new(page_size).expect("valid"),
            dtype: DType::F32,
        };
        let cache = KvCache::new(&mut backend, layout, LAYERS, PAGES, PageExtras::default()).expect("fits");
        World { backend, cache, page_size, sequences: Vec::new(), next_stamp: 0 }
    }

    fn run(&mut self, op: Op) {
        if let Op::New = op {
            return self.sequences.push((self.cache.table(), Vec::new()));
        }
        if self.sequences.is_empty() {
            return;
        }
        let live = self.sequences.len();
        match op {
            Op::New => {}
            Op::Grow { of, by, fail } => self.grow(of % live, by, fail),
            Op::Truncate { of, keep } => {
                let (table, stamps) = &mut self.sequences[of % live];
                stamps.truncate((stamps.len() as f64 * keep) as usize);
                self.cache.truncate(table, stamps.len()).expect("not longer");
            }
            Op::Fork { of } => {
                let (table, stamps) = &self.sequences[of % live];
                let fork = (self.cache.fork(table).expect("own table"), stamps.clone());
                self.sequences.push(fork);
            }
            Op::Release { of } => {
                let (table, _) = self.sequences.swap_remove(of % live);
                self.cache.release(table).expect("own table");
            }
        }
    }

    fn grow(&mut self, of: usize, by: usize, fail: Option<usize>) {
        let holders = self.holders();
        let (table, stamps) = &mut self.sequences[of];
        let (old, new) = (stamps.len(), stamps.len() + by);
        let copies =
            by > 0 && old % self.page_size > 0 && holders[table.pages()[old / self.page_size] as usize] > 1;
        let need = new.div_ceil(self.page_size) - old.div_ceil(self.page_size) + usize::from(copies);
        let free = self.cache.free_pages();
        let before = format!("{table:?} {:?}", self.cache.pool());
        self.backend.copies_left = fail;
        let result = self.cache.reserve(&mut self.backend, table, new);
        self.backend.copies_left = None;
        match result {
            Err(Error::OutOfPages { asked, free: seen, total }) => {
                assert_eq!((asked, seen, total), (need, free, PAGES));
                assert!(need > free);
                assert_eq!(before, format!("{table:?} {:?}", self.cache.pool()));
            }
            Err(Error::Backend(_)) => {
                assert!(copies && fail.is_some());
                assert_eq!(before, format!("{table:?} {:?}", self.cache.pool()));
            }
            Err(other) => panic!("{other}"),
            Ok(()) => {
                assert!(need <= free && !(copies && fail.is_some()));
                assert_eq!(self.cache.free_pages(), free - need);
                for position in old..new {
                    self.next_stamp += 1;
                    stamps.push(self.next_stamp);
                    let page = table.pages()[position / self.page_size] as usize;
                    for layer in 0..LAYERS {
                        self.cache.layer_mut(layer)[page][position % self.page_size] = self.next_stamp;
                    }
                }
            }
        }
    }

    /// How many live tables hold each page.
    fn holders(&self) -> Vec<u32> {
        let mut holders = vec![0; PAGES];
        for &page in self.sequences.iter().flat_map(|(table, _)| table.pages()) {
            holders[page as usize] += 1;
        }
        holders
    }

    fn check(&self) {
        let holders = self.holders();
        for (page, &count) in holders.iter().enumerate() {
            assert_eq!(self.cache.pool().holders(page as u32), count, "holders of page {page}");
        }
        let used = holders.iter().filter(|&&count| count > 0).count();
        assert_eq!((self.cache.used_pages(), self.cache.free_pages()), (used, PAGES - used));
        assert_eq!(self.cache.live_tables(), self.sequences.len());
        for (table, stamps) in &self.sequences {
            assert_eq!(table.len(), stamps.len());
            assert_eq!(table.pages().len(), stamps.len().div_ceil(self.page_size));
            for kv in self.cache.layers() {
                let stored = (0..table.len())
                    .map(|t| kv[table.pages()[t / self.page_size] as usize][t % self.page_size]);
                assert!(stored.eq(stamps.iter().copied()), "tokens of a sequence changed");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_page_is_lost_and_sequences_stay_apart(
        page_size in prop::sample::select(vec![1usize, 2, 4, 8]),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(page_size);
        for op in ops {
            world.run(op);
            world.check();
        }
        for (table, _) in std::mem::take(&mut world.sequences) {
            world.cache.release(table).expect("own table");
        }
        world.check();
    }
}
