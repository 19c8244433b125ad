//! What is refused, in which words, and what a leak looks like.

use lim_kernels::{DType, Heads, KvLayout, PageExtras, PageSize};
use lim_kvcache::{Error, KvCache, Pool};

use crate::fake::Fake;

fn cache(backend: &mut Fake) -> KvCache<Fake> {
    let layout = KvLayout {
        heads: Heads::new(4, 2, 8).expect("valid"),
        page_size: PageSize::new(4).expect("valid"),
        dtype: DType::BF16,
    };
    KvCache::new(backend, layout, 3, 5, PageExtras::default()).expect("fits")
}

#[test]
fn out_of_pages_says_how_many() {
    let mut backend = Fake { copies_left: None };
    let mut cache = cache(&mut backend);
    let mut table = cache.table();
    cache.reserve(&mut backend, &mut table, 9).expect("three pages");
    let error = cache.reserve(&mut backend, &mut table, 24).expect_err("six pages");
    assert_eq!(error.to_string(), "out of KV pages: asked for 3, 2 of 5 free");
    assert_eq!((table.len(), table.pages()), (9, [0, 1, 2].as_slice()));
}

#[test]
fn lengths_go_one_way() {
    let mut backend = Fake { copies_left: None };
    let mut cache = cache(&mut backend);
    let mut table = cache.table();
    cache.reserve(&mut backend, &mut table, 9).expect("three pages");
    let error = cache.reserve(&mut backend, &mut table, 8).expect_err("shorter");
    assert_eq!(error.to_string(), "reserve: new length 8, must be at least the present length 9");
    let error = cache.truncate(&mut table, 10).expect_err("longer");
    assert_eq!(error.to_string(), "truncate: new length 10, must be at most the present length 9");
}

#[test]
fn tables_of_another_cache_are_refused() {
    let mut backend = Fake { copies_left: None };
    let (mut one, other) = (cache(&mut backend), cache(&mut backend));
    let mut foreign = other.table();
    assert!(matches!(one.reserve(&mut backend, &mut foreign, 1), Err(Error::ForeignTable)));
    assert!(matches!(one.truncate(&mut foreign, 0), Err(Error::ForeignTable)));
    assert!(matches!(one.fork(&foreign), Err(Error::ForeignTable)));
    assert!(matches!(one.release(foreign), Err(Error::ForeignTable)));
}

#[test]
fn a_dropped_table_shows_as_a_leak() {
    let mut backend = Fake { copies_left: None };
    let mut cache = cache(&mut backend);
    let mut table = cache.table();
    cache.reserve(&mut backend, &mut table, 5).expect("two pages");
    drop(table);
    assert_eq!((cache.live_tables(), cache.used_pages()), (0, 2));
}

#[test]
fn bytes_follow_the_layout() {
    let cache = cache(&mut Fake { copies_left: None });
    // K and V, 2 heads of 8 bf16, 3 layers; 5 pages of 4 tokens.
    assert_eq!(cache.bytes_per_token(), 2 * 2 * 8 * 2 * 3);
    assert_eq!(cache.bytes(), 5 * 4 * 192);
}

#[test]
fn pool_refuses_pages_nobody_holds() {
    let mut pool = Pool::new(2).expect("small");
    let mut pages = Vec::new();
    pool.take(1, &mut pages).expect("free");
    pool.give_back(pages[0]).expect("held");
    let error = pool.give_back(pages[0]).expect_err("double free");
    assert_eq!(error.to_string(), "page 0 is not in use in a pool of 2 pages");
    assert!(matches!(pool.share(0), Err(Error::NotInUse { page: 0, total: 2 })));
    assert!(matches!(pool.share(7), Err(Error::NotInUse { page: 7, total: 2 })));
}
