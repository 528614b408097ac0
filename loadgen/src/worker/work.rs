//! What a request costs: time, CPU and memory.

use std::time::Duration;

use memmap2::MmapMut;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The smallest page of the platforms that we know; writing to one byte in each makes the memory real.
const PAGE: usize = 4096;

/// What each request costs.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    service_time: Duration,
    cpu: Duration,
    memory: usize,
}

impl Work {
    /// Requests of `service_time`, of which `cpu` is spent computing, with `memory` bytes held.
    pub fn new(service_time: Duration, cpu: Duration, memory: usize) -> Self {
        Work { service_time, cpu, memory }
    }

    /// Serves one request.
    pub async fn serve(self) {
        let end = Instant::now() + self.service_time;
        let memory = hold(self.memory);
        spin(self.cpu);
        tokio::time::sleep_until(end).await;
        drop(memory);
    }
}

/// Takes `bytes` from the system, and gives them back when dropped. An allocator would keep what it was given, and
/// memory would be no signal. Where the system has none left, nothing is held.
pub(super) fn hold(bytes: usize) -> Option<MmapMut> {
    if bytes == 0 {
        return None;
    }
    let mut memory = MmapMut::map_anon(bytes).ok()?;
    for byte in memory.iter_mut().step_by(PAGE) {
        *byte = 1;
    }
    Some(memory)
}

/// Uses `cpu` of this thread's CPU time: however slow or shared the machine, a request costs the same.
fn spin(cpu: Duration) {
    let end = thread_cpu() + cpu;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    while thread_cpu() < end {
        // About 10 µs of FNV-1a between two looks at the clock.
        for byte in 0..8_192_u64 {
            hash = (hash ^ (byte & 0xff)).wrapping_mul(0x0100_0000_01b3);
        }
        std::hint::black_box(hash);
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_uses_cpu_time_of_this_thread() {
        let end = thread_cpu() + Duration::from_millis(5);
        spin(Duration::from_millis(5));
        assert!(thread_cpu() >= end);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_lasts_its_service_time() {
        let before = Instant::now();
        Work::new(Duration::from_millis(100), Duration::ZERO, 10_000).serve().await;
        assert_eq!(before.elapsed(), Duration::from_millis(100));
    }
}
