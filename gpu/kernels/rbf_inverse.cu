// Gram matrix, Cholesky factor and inverse of one mini-batch per thread block, in shared memory: rbf_inverse.py says
// what is computed and what bounds its time, and defines THREADS in a block, CHUNK features in shared memory at a time,
// and SIDE: a thread computes SIDE × SIDE distances from 2·SIDE numbers per feature.
// No warp intrinsics: threads meet at __syncthreads alone, so that the same text can be checked on a processor.

// Where entry (i, k) of a lower triangle lies, rows packed one after the other. That is also the layout in which
// a column is read fast: at most two of consecutive triangular numbers lie in the same bank.
__device__ inline int packed(int i, int k)
{
    return i * (i + 1) / 2 + k;
}

// A[i, k] += the squared distance of rows i and k over one chunk, for every pair of rows. Thread blocks of pairs are
// (i + a·sides, k + b·sides), so that neighbouring threads read neighbouring numbers.
template <typename real>
__device__ void add_distances(real* A, const real* chunk, int m, int sides, int stride)
{
    for (int pair = threadIdx.x; pair < sides * sides; pair += blockDim.x) {
        const int i = pair / sides, k = pair % sides;
        if (k > i)
            continue;
        real sums[SIDE][SIDE] = {};
        for (int feature = 0; feature < CHUNK; ++feature) {
            const real* x = chunk + feature * stride;
            for (int a = 0; a < SIDE; ++a)
                for (int b = 0; b < SIDE; ++b) {
                    const real difference = x[i + a * sides] - x[k + b * sides];
                    sums[a][b] += difference * difference;
                }
        }
        for (int a = 0; a < SIDE; ++a)
            for (int b = 0; b < SIDE; ++b) {
                const int row = i + a * sides, column = k + b * sides;
                if (row < m && column < m && (row >= column || i != k))
                    A[row >= column ? packed(row, column) : packed(column, row)] += sums[a][b];
            }
    }
}

// A = exp(−γ·distances) + ridge·I, the chunks of X passing through shared memory.
template <typename real>
__device__ void gram(real* A, real* chunk, const real* X, int m, int d, real gamma, real ridge)
{
    const int size = packed(m, 0), sides = (m + SIDE - 1) / SIDE, rows = SIDE * sides, stride = rows + 1;
    for (int p = threadIdx.x; p < size; p += blockDim.x)
        A[p] = 0;
    for (int start = 0; start < d; start += CHUNK) {
        for (int p = threadIdx.x; p < CHUNK * rows; p += blockDim.x) {
            const int row = p / CHUNK, feature = p % CHUNK;
            const bool inside = row < m && start + feature < d;
            chunk[feature * stride + row] = inside ? X[row * (long long)d + start + feature] : real(0);
        }
        __syncthreads();
        add_distances(A, chunk, m, sides, stride);
        __syncthreads();
    }
    for (int p = threadIdx.x; p < size; p += blockDim.x)
        A[p] = exp(-gamma * A[p]);
    __syncthreads();
    for (int i = threadIdx.x; i < m; i += blockDim.x)
        A[packed(i, i)] += ridge;
    __syncthreads();
}

// A = L·Lᵀ → L⁻¹, in place. Square roots wait until the end (L = U·D^½, U with ones on its diagonal), so that a column
// of either step takes one synchronisation: what a column is computed from, nobody writes to meanwhile.
template <typename real>
__device__ void invert_factor(real* A, int m)
{
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32, step = blockDim.x / 32;
    for (int j = 0; j < m - 1; ++j) {
        const real reciprocal = 1 / A[packed(j, j)];
        for (int i = j + 1 + first; i < m; i += step) {
            const real multiplier = A[packed(i, j)] * reciprocal;
            for (int k = j + 1 + lane; k <= i; k += 32)
                A[packed(i, k)] -= multiplier * A[packed(k, j)];
        }
        __syncthreads();
    }
    for (int i = first; i < m; i += step)  // −U below the diagonal: the negative of a column is already the inverse's
        for (int k = lane; k < i; k += 32)
            A[packed(i, k)] /= -A[packed(k, k)];
    __syncthreads();
    for (int j = 1; j < m - 1; ++j) {
        for (int i = j + 1 + first; i < m; i += step) {
            const real multiplier = A[packed(i, j)];
            for (int k = lane; k < j; k += 32)
                A[packed(i, k)] += multiplier * A[packed(j, k)];
        }
        __syncthreads();
    }
    for (int i = first; i < m; i += step) {
        const real root = sqrt(A[packed(i, i)]);
        for (int k = lane; k < i; k += 32)
            A[packed(i, k)] /= root;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < m; i += blockDim.x)
        A[packed(i, i)] = 1 / sqrt(A[packed(i, i)]);
    __syncthreads();
}

template <typename real>
__global__ __launch_bounds__(THREADS, 3) void rbf_inverse(
    const real* X, int m, int d, real gamma, real ridge, real largest_norm, real* inverses, bool* failed)
{
    extern __shared__ double memory[];
    real* A = reinterpret_cast<real*>(memory);
    real* scratch = A + packed(m, 0);  // a chunk of X, then the column sums of the inverse
    gram(A, scratch, X + blockIdx.x * (long long)m * d, m, d, gamma, ridge);
    invert_factor(A, m);

    real* inverse = inverses + blockIdx.x * (long long)m * m;
    for (int i = threadIdx.x / 32; i < m; i += blockDim.x / 32)
        for (int k = threadIdx.x % 32; k <= i; k += 32) {
            real sum = 0;
            for (int row = i; row < m; ++row)
                sum += A[packed(row, i)] * A[packed(row, k)];
            inverse[i * m + k] = inverse[k * m + i] = sum;
        }
    __syncthreads();
    for (int k = threadIdx.x; k < m; k += blockDim.x) {
        real sum = 0;
        for (int i = 0; i < m; ++i)
            sum += fabs(inverse[i * m + k]);
        scratch[k] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        bool regular = true;  // a pivot that is not positive has made the inverse infinite or NaN
        for (int k = 0; k < m; ++k)
            regular = regular && scratch[k] < largest_norm;
        failed[blockIdx.x] = !regular;
    }
}
