//! Tests of the slots with real threads; `slots_tests.rs` has those of the order.

use std::sync::atomic::AtomicUsize;

use super::*;

/// Each device, its slots, and how many of them are held.
fn in_use(cores: &Cores) -> Vec<(Device, usize, usize)> {
    cores.lock().ledger.devices().collect()
}

const ONE: Placement = Placement { device: Device::Socket(0), threads: 1 };

fn work() -> Wish {
    Wish::Work { deadline: None }
}

fn slots_of(asked: Asked) -> Option<Slot> {
    match asked {
        Asked::Granted(slot) => Some(slot),
        Asked::Queued(queued) => queued.wait(),
    }
}

/// Several versions with several workers each; gives the most threads that ran at once.
fn crowd(granted: Option<usize>, threads: usize) -> usize {
    let cores = Cores::new(granted, Duration::ZERO);
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for weight in 1..=3 {
            let share = Arc::new(cores.open(weight, &[ONE.device], work));
            for _ in 0..3 {
                let (share, running, most) = (Arc::clone(&share), &running, &most);
                scope.spawn(move || {
                    let mut held: Option<Slot> = None;
                    for run in 0..500 {
                        let threads = if run / 4 % 2 == 0 { threads } else { 1 };
                        held = slots_of(match held.take() {
                            Some(slot) if run % 4 != 0 => slot.ask_again(),
                            slot => {
                                drop(slot);
                                share.ask(Placement { threads, ..ONE })
                            }
                        });
                        assert!(held.is_some(), "there is always work");
                        most.fetch_max(
                            running.fetch_add(threads, Ordering::SeqCst) + threads,
                            Ordering::SeqCst,
                        );
                        std::thread::yield_now();
                        running.fetch_sub(threads, Ordering::SeqCst);
                    }
                });
            }
        }
    });
    assert!(in_use(&cores).iter().all(|&(_, _, held)| held == 0), "everything was given back");
    most.into_inner()
}

#[test]
fn no_more_threads_run_than_are_granted_but_visitors_and_no_wake_up_is_lost() {
    // As many again may visit, where others run unusually long.
    assert!(crowd(Some(1), 1) <= 2);
    assert!(crowd(Some(2), 2) <= 4);
    assert!(crowd(Some(3), 2) <= 6);
    assert!(crowd(None, 2) >= 1);
}

#[test]
fn whoever_has_nothing_to_run_any_more_is_sent_back() {
    let cores = Cores::new(Some(1), Duration::ZERO);
    let busy = cores.open(1, &[ONE.device], work);
    let idle = cores.open(1, &[ONE.device], || Wish::Nothing);
    let slot = slots_of(busy.ask(ONE));
    let Asked::Queued(queued) = idle.ask(ONE) else { panic!("the only core is busy") };
    drop(slot);
    assert!(queued.wait().is_none());
    assert_eq!(in_use(&cores), [(ONE.device, 1, 0)]);
}

#[test]
fn background_work_waits_for_a_free_core_and_goes_on_without_one() {
    let cores = Cores::new(Some(1), Duration::ZERO);
    let share = cores.open(1, &[ONE.device], work);
    let load = cores.background(1);
    assert!(load.is_some());
    let Asked::Granted(slot) = share.ask(ONE) else { panic!("background work keeps nobody waiting") };
    drop(load);
    assert!(cores.background(1).is_none(), "all cores were busy for too long");
    drop(slot);
    assert!(cores.background(1).is_some());
}

#[test]
fn for_a_second_after_a_refusal_more_are_expected() {
    let cores = Cores::new(Some(1), Duration::ZERO);
    let share = cores.open(1, &[ONE.device], work);
    let refused = cores.made + Duration::from_millis(5);
    assert!(!share.is_refusing(refused), "nothing was refused yet");
    cores.note_refusal(refused);
    assert!(share.is_refusing(refused));
    assert!(share.is_refusing(refused + Duration::from_millis(999)));
    assert!(!share.is_refusing(refused + Duration::from_secs(1)));
    assert!(
        share.is_refusing(refused - Duration::from_millis(1)),
        "as a worker sees it whose clock was read before"
    );
}

#[test]
fn a_run_on_a_gpu_holds_no_core() {
    let cores = Cores::new(Some(1), Duration::ZERO);
    let gpus = [Device::Gpu(0), Device::Gpu(1)];
    let (on_gpus, on_cpu) = (cores.open(1, &gpus, work), cores.open(1, &[ONE.device], work));
    let mut held = Vec::new();
    for device in gpus {
        for _ in 0..GPU_SLOTS {
            held.extend(slots_of(on_gpus.ask(Placement { device, threads: 4 })));
        }
    }
    held.extend(slots_of(on_cpu.ask(ONE)));
    assert_eq!(held.len(), 2 * GPU_SLOTS + 1);
    assert_eq!(in_use(&cores), [(ONE.device, 1, 1), (gpus[0], 2, 2), (gpus[1], 2, 2)]);
    let Asked::Queued(queued) = on_gpus.ask(Placement { device: gpus[0], threads: 4 }) else {
        panic!("both slots of the first GPU are held")
    };
    drop(held);
    assert!(queued.wait().is_some());
}

#[test]
fn who_asks_again_keeps_the_slots_where_nobody_waits() {
    let cores = Cores::new(Some(1), Duration::ZERO);
    let now = Instant::now();
    // Where nobody visits.
    let gpu = Placement { device: Device::Gpu(0), threads: 1 };
    let one = cores.open(1, &[gpu.device], work);
    let other = cores.open(1, &[gpu.device], move || Wish::Work { deadline: Some(now) });
    let others: Vec<_> = (1..GPU_SLOTS).map(|_| slots_of(one.ask(gpu)).unwrap()).collect();
    let slot = slots_of(one.ask(gpu)).unwrap();
    let Asked::Granted(slot) = slot.ask_again() else { panic!("nobody else wants it") };
    let Asked::Queued(waiting) = other.ask(gpu) else { panic!("all are held") };
    let Asked::Queued(back) = slot.ask_again() else { panic!("the other one is more urgent") };
    drop(waiting.wait().unwrap());
    assert!(back.wait().is_some());
    drop(others);
    assert_eq!(in_use(&cores), [(ONE.device, 1, 0), (gpu.device, GPU_SLOTS, 0)]);
}
