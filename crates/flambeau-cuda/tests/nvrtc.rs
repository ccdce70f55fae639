//! Every kernel compiles for every architecture that we support, with the NVRTC library alone and no GPU. NVRTC is looked for
//! in the directory that `FLAMBEAU_NVRTC_DIR` names, then in the system's paths; without it the test says so and is skipped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[test]
fn all_kernels_compile_for_every_architecture() {
    if let Some(directory) = std::env::var_os("FLAMBEAU_NVRTC_DIR") {
        flambeau_cuda::add_library_path(directory.into());
    }
    let probe = "extern \"C\" __global__ void probe(int *x) { *x = 1; }";
    if let Err(e) = flambeau_cuda::compile_with_nvrtc(probe, "sm_80") {
        println!("skipped: {e}");
        return;
    }
    let sources = flambeau_cuda::all_kernel_sources();
    assert!(sources.len() > 5);
    for arch in ["sm_75", "sm_80", "sm_90"] {
        let begin = Instant::now();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
                scope.spawn(|| {
                    while let Some((name, source)) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let cubin = flambeau_cuda::compile_with_nvrtc(source, arch)
                            .unwrap_or_else(|e| panic!("{name} for {arch}: {e}"));
                        assert!(cubin.starts_with(b"\x7fELF"), "{name} for {arch}");
                    }
                });
            }
        });
        println!("{arch}: {} texts in {:.1} s", sources.len(), begin.elapsed().as_secs_f64());
    }
}
