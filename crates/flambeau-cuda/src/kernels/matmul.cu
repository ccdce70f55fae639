// A batched product in tiles of 32 by 32, each thread four results, over any strides.  Halves accumulate in float.
struct MatmulArgs {
    Walk batch;
    Operand a, b, out;       // strides of the batch dimensions
    i64 m, n, k, am, ak, bk, bn, om, on;
    char *bias;
    i64 bias_step, accumulate;
};
enum { TILE = 32, DEPTH = 16 };
template <class C, int DT, int OUT> __device__ inline void matmul(const MatmulArgs &g, char *room) {
    C (*as)[TILE + 1] = (C (*)[TILE + 1])room;
    C (*bs)[TILE + 1] = (C (*)[TILE + 1])(room + DEPTH * (TILE + 1) * sizeof(C));
    int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    i64 tiles_n = (g.n + TILE - 1) / TILE, tiles = tiles_n * ((g.m + TILE - 1) / TILE);
    for (i64 w = blockIdx.x; w < tiles * g.batch.n; w += gridDim.x) {
        Coordinates at = unravel(g.batch, w / tiles);
        i64 t = w % tiles, row0 = t / tiles_n * TILE, col0 = t % tiles_n * TILE;
        i64 a0 = offset(at, g.batch, g.a.stride), b0 = offset(at, g.batch, g.b.stride), o0 = offset(at, g.batch, g.out.stride);
        C sum[2][2] = {{C(0), C(0)}, {C(0), C(0)}};
        for (i64 k0 = 0; k0 < g.k; k0 += DEPTH) {
            for (int e = threadIdx.x; e < TILE * DEPTH; e += 256) {
                // Neighbouring threads read neighbouring memory, whichever way the matrix lies.
                int r = g.ak == 1 ? e / DEPTH : e % TILE, d = g.ak == 1 ? e % DEPTH : e / TILE;
                as[d][r] = row0 + r < g.m && k0 + d < g.k ? load_at<C, DT>(g.a.p, g.a.dtype, a0 + (row0 + r) * g.am + (k0 + d) * g.ak) : C(0);
                int c = g.bn == 1 ? e % TILE : e / DEPTH, f = g.bn == 1 ? e / TILE : e % DEPTH;
                bs[f][c] = col0 + c < g.n && k0 + f < g.k ? load_at<C, DT>(g.b.p, g.b.dtype, b0 + (k0 + f) * g.bk + (col0 + c) * g.bn) : C(0);
            }
            __syncthreads();
            for (int d = 0; d < DEPTH; d++) {
                C x0 = as[d][ty], x1 = as[d][ty + 16], y0 = bs[d][tx], y1 = bs[d][tx + 16];
                sum[0][0] = FMA(x0, y0, sum[0][0]);
                sum[0][1] = FMA(x0, y1, sum[0][1]);
                sum[1][0] = FMA(x1, y0, sum[1][0]);
                sum[1][1] = FMA(x1, y1, sum[1][1]);
            }
            __syncthreads();
        }
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) {
                i64 r = row0 + ty + 16 * i, c = col0 + tx + 16 * j;
                if (r >= g.m || c >= g.n) continue;
                i64 o = o0 + r * g.om + c * g.on;
                C v = sum[i][j];
                if (g.bias) v = v + load_at<C, DT>(g.bias, g.a.dtype, c * g.bias_step);
                if (g.accumulate) v = v + load_at<C, OUT>(g.out.p, g.out.dtype, o);
                store_at<C, OUT>(g.out.p, g.out.dtype, o, v);
            }
    }
}
