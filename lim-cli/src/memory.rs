//! Device memory: what a run will take, said before it is taken, and what to change where that is too much.

use lim_kernels::{Capacity, PageExtras, PageSize};
use lim_model::{Demand, EngineOptions};
use lim_select::Attention;

use crate::console::Console;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::open::Opened;
use crate::report::bytes;

/// A device with memory of its own. There is none for the CPU, whose pages come when they are touched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    pub(crate) device: &'a str,
    /// Bytes.
    pub(crate) free: u64,
}

impl Room<'_> {
    /// Says what there is and what is wanted, and cuts the pages of `sizes` to what fits.
    ///
    /// # Errors
    /// Out of memory, when not even `least` pages fit.
    pub(crate) fn fit(
        self,
        console: Console,
        demand: &Demand<'_>,
        sizes: EngineOptions,
        least: usize,
    ) -> Result<EngineOptions> {
        let Room { device, free } = self;
        let Capacity { seqs, .. } = sizes.capacity;
        let longest = demand.longest(&sizes, seqs, free);
        let fits = match (seqs, longest) {
            (_, 0) => "no context fits".to_owned(),
            (1, _) => format!("a context of {longest} tokens fits"),
            _ => format!("{seqs} contexts of {longest} tokens each fit"),
        };
        console.item(
            "memory",
            format_args!(
                "{} free, weights {}, buffers {}, KV cache {} per 1024 tokens: {fits}",
                bytes(free),
                bytes(demand.weights()),
                bytes(demand.buffers(sizes.capacity)),
                bytes(1024 * demand.token(sizes.kv_dtype))
            ),
        );
        let pages = demand.pages(&sizes, free).min(sizes.pages);
        if pages < least {
            let total = demand.total(&EngineOptions { pages: least, ..sizes });
            return Err(lim_kernels::Error::OutOfMemory {
                device: device.to_owned(),
                bytes: usize::try_from(total).unwrap_or(usize::MAX),
                free: usize::try_from(free).ok(),
                what: "weights, buffers and KV cache",
            }
            .into());
        }
        Ok(cut(console, sizes, pages))
    }
}

/// `sizes` with so many pages, and a word to the user where they are fewer.
fn cut(console: Console, sizes: EngineOptions, pages: usize) -> EngineOptions {
    if pages < sizes.pages {
        let [held, asked] = [pages, sizes.pages].map(|pages| pages * sizes.page_size.tokens());
        console.note(format_args!(
            "note: the KV cache holds {held} tokens, not {asked}: where it is full, samples wait and are recomputed"
        ));
    }
    EngineOptions { pages, ..sizes }
}

/// Prompts of a batch whose pages are kept, for their other samples and the other settings.
const PROMPTS: usize = 64;

/// Answers that are decoded together, as some end and others begin.
pub(crate) struct Batch<'a> {
    /// All that they may be decoded under.
    pub(crate) attentions: &'a [Attention],
    /// Sequences at a time.
    pub(crate) seqs: usize,
    /// Tokens of the longest prompt, and of the longest answer.
    pub(crate) prompt: usize,
    pub(crate) answer: usize,
    pub(crate) page_size: PageSize,
}

impl Batch<'_> {
    /// Room for as many of the longest answers; pages are cut to what fits into memory, at least one answer's.
    ///
    /// # Errors
    /// As [`fit`].
    pub(crate) fn sizes<B: Machine>(
        self,
        console: Console,
        backend: &B,
        opened: &Opened,
    ) -> Result<EngineOptions> {
        let Batch { attentions, seqs, prompt, answer, page_size } = self;
        let tokens = prompt + answer - 1;
        let pages = page_size.pages_for(tokens);
        let sizes = EngineOptions {
            capacity: Capacity { rows: seqs.max(B::PREFILL_ROWS), seqs, tokens },
            pages: seqs * pages,
            page_size,
            kv_dtype: opened.dtype,
            prompts: PROMPTS,
            extras: attentions.iter().fold(PageExtras::default(), |all, a| all.and(a.policy().extras())),
        };
        fit(console, backend, &opened.demand(attentions), sizes, pages)
    }
}

/// Cuts the pages of a batch to what memory holds: `least` pages stay.
///
/// # Errors
/// As [`Room::fit`] on a device with memory of its own.
pub(crate) fn fit<B: Machine>(
    console: Console,
    backend: &B,
    demand: &Demand<'_>,
    sizes: EngineOptions,
    least: usize,
) -> Result<EngineOptions> {
    let Some(free) = backend.free_memory()? else {
        // A batch of long answers may be more than the machine has; few of them get that long.
        let free = system("MemAvailable");
        return Ok(free.map_or(sizes, |free| within(console, demand, sizes, free, least)));
    };
    Room { device: &backend.device(), free }.fit(console, demand, sizes, least)
}

/// Cuts the pages of `sizes` to what `free` bytes of the system's memory hold, a quarter left to others; `least` pages stay.
fn within(
    console: Console,
    demand: &Demand<'_>,
    sizes: EngineOptions,
    free: u64,
    least: usize,
) -> EngineOptions {
    let page = demand.page(&sizes);
    let fits = usize::try_from(free / 4 * 3 / page.max(1)).unwrap_or(usize::MAX);
    cut(console, sizes, sizes.pages.min(fits.max(least)))
}

/// A field of /proc/meminfo in bytes, where the system has that.
pub(crate) fn system(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Tells what to change where `result` is that a device's memory does not hold what was asked for.
pub(crate) fn advise<T>(result: Result<T>, advice: &str) -> Result<T> {
    result.map_err(|error| match error.kernel() {
        Some(lim_kernels::Error::OutOfMemory { device, bytes: wanted, free, what }) => {
            let wanted = bytes(*wanted as u64);
            let free = free.map_or(String::new(), |free| format!(", {} free", bytes(free as u64)));
            Error::Failed(format!("out of memory on {device}: {wanted} for {what}{free}. {advice}"))
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use lim_kernels::DType;
    use lim_model::Config;

    use super::*;

    fn fit(free: u64, samples: usize, tokens: usize) -> Result<EngineOptions> {
        let config = Config::preset("qwen3-8b").expect("a preset");
        let demand = Demand { config: &config, dtype: DType::BF16, attentions: &[] };
        let sizes = EngineOptions { kv_dtype: DType::BF16, ..EngineOptions::new(samples, tokens) };
        let least = sizes.page_size.pages_for(tokens);
        Room { device: "cuda:0", free }.fit(Console::new(true), &demand, sizes, least)
    }

    #[test]
    fn pages_are_cut_to_what_fits() {
        let all = fit(80 << 30, 4, 32768).expect("room for all");
        assert_eq!(all.pages, 4 * 2048);
        let some = fit(26 << 30, 4, 32768).expect("room for one");
        assert!((2048..4 * 2048).contains(&some.pages), "{}", some.pages);
        assert_eq!(some.capacity, all.capacity);
    }

    #[test]
    fn system_memory_bounds_pages_but_for_the_least() {
        let config = Config::preset("qwen3-8b").expect("a preset");
        let demand = Demand { config: &config, dtype: DType::BF16, attentions: &[] };
        let sizes = EngineOptions { kv_dtype: DType::BF16, ..EngineOptions::new(16, 32768) };
        let pages = |free| within(Console::new(true), &demand, sizes, free, 2048).pages;
        // 144 KiB a token, 16 tokens a page.
        assert_eq!(pages(12 << 30), (9 << 30) / (144 * 1024 * 16));
        assert_eq!((pages(1 << 40), pages(1 << 30)), (16 * 2048, 2048));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_sizes_and_advice() {
        let text = advise(fit(18 << 30, 1, 32768), "Lower --samples.").expect_err("too much").to_string();
        assert!(text.starts_with("out of memory on cuda:0: 2"), "{text}");
        assert!(
            text.ends_with(" GB for weights, buffers and KV cache, 19.3 GB free. Lower --samples."),
            "{text}"
        );
        let other = advise::<()>(Err(Error::Interrupted), "Lower --samples.").expect_err("an error");
        assert!(matches!(other, Error::Interrupted));
    }
}
