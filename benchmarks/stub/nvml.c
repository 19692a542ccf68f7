/* A stand-in for NVIDIA's libnvidia-ml.so.1, so that the real binding can be driven without a GPU: what it answers is
 * set by the stub_* functions, or in a process that calls none of them by SERVESCOPE_STUB_GPUS (how many) and
 * SERVESCOPE_STUB_PROCESSES (what runs on them: 0:4711,1:4711). Its figures are made up; only the interface is NVML's:
 * https://docs.nvidia.com/deploy/nvml-api/
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GPUS 16
#define RULES 64
#define PROCESSES 16
#define XIDS 16
#define MIGS 7
#define MIG_HANDLE 0x1000
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define TIMEOUT 10
#define GPU_IS_LOST 15
#define INVALID 2

typedef unsigned long long u64;
typedef void *device_t;

typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct { unsigned pid; u64 time; unsigned sm, memory, encoder, decoder; } process_use_t;
typedef struct {
  unsigned field, scope;
  long long timestamp, latency;
  unsigned type, result;
  union { double d; unsigned u; u64 ull; } value;
} field_t;
typedef struct { device_t device; u64 type, data; unsigned gpu_instance, compute_instance; } event_t;
typedef struct { unsigned id, result; double value; char *names[3]; } metric_t;
typedef struct { unsigned version, count; u64 *before, *after; metric_t metrics[]; } metrics_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static int made, loaded = 1, gpus, moving, registered[GPUS], lost[GPUS], migs[GPUS];
static struct { int gpu, code; char name[64]; } rules[RULES]; /* code -1: hangs */
static int rule_count, hanging;
static struct { int gpu; unsigned pid; u64 used; unsigned sm; } processes[PROCESSES];
static int process_count;
static struct { int gpu; u64 xid; } xids[XIDS];
static int xid_count;
static size_t event_set; /* of the driver as it was last reset: one of before is told nothing */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* Work of a GPU between 0 and 1: still as tests set it, or moving with time. */
static double busy(int gpu) {
  return moving ? 0.62 + 0.3 * sin(now() / 41 + gpu * 0.7) - (gpu == 5 ? 0.3 : 0) : 0.87;
}

static int index_of(device_t device) {
  size_t handle = (size_t)device;
  return handle >= MIG_HANDLE ? (int)((handle - MIG_HANDLE) / MIGS) : (int)handle - 1;
}

static int is_mig(device_t device) { return (size_t)device >= MIG_HANDLE; }

static int enter_gpu(int gpu, const char *name) {
  int code = 0;
  pthread_mutex_lock(&lock);
again:
  for (int i = 0; i < rule_count; i++) {
    if ((rules[i].gpu >= 0 && rules[i].gpu != gpu) || strcmp(rules[i].name, name)) continue;
    if (rules[i].code == -1) {
      hanging++;
      pthread_cond_broadcast(&news);
      pthread_cond_wait(&news, &lock);
      hanging--;
      goto again;
    }
    code = rules[i].code;
  }
  if (!loaded) code = DRIVER_NOT_LOADED;
  else if (gpu >= 0 && gpu < GPUS && lost[gpu]) code = GPU_IS_LOST;
  pthread_mutex_unlock(&lock);
  return code;
}

#define ENTER(device) do { int code = enter_gpu(index_of(device), __func__); if (code) return code; } while (0)
#define WHOLE(device) do { ENTER(device); if (is_mig(device)) return NOT_SUPPORTED; } while (0)

void stub_reset(int count, int is_loaded) {
  pthread_mutex_lock(&lock);
  event_set++, made = 1, gpus = count, loaded = is_loaded, moving = 0, rule_count = process_count = xid_count = 0;
  memset(lost, 0, sizeof lost), memset(migs, 0, sizeof migs), memset(registered, 0, sizeof registered);
  pthread_cond_broadcast(&news);
  pthread_mutex_unlock(&lock);
}
void stub_move(void) { moving = 1; }
/* A call answers with an error code, or hangs until the rule is taken back (code -1); gpu -1 is every GPU. */
void stub_rule(int gpu, const char *name, int code) {
  pthread_mutex_lock(&lock);
  if (rule_count < RULES) {
    rules[rule_count].gpu = gpu, rules[rule_count].code = code;
    snprintf(rules[rule_count].name, sizeof rules[0].name, "%s", name);
    rule_count++;
  }
  pthread_mutex_unlock(&lock);
}
void stub_rules_over(void) {
  pthread_mutex_lock(&lock);
  rule_count = 0;
  pthread_cond_broadcast(&news);
  pthread_mutex_unlock(&lock);
}
int stub_hanging(void) { return hanging; }
void stub_lose(int gpu, int is_lost) { lost[gpu] = is_lost; }
void stub_mig(int gpu, int parts) { migs[gpu] = parts; }
void stub_process(int gpu, unsigned pid, u64 used, unsigned sm) {
  if (process_count < PROCESSES) {
    processes[process_count].gpu = gpu, processes[process_count].pid = pid;
    processes[process_count].used = used, processes[process_count].sm = sm;
    process_count++;
  }
}
void stub_xid(int gpu, u64 xid) {
  pthread_mutex_lock(&lock);
  if (xid_count < XIDS) xids[xid_count].gpu = gpu, xids[xid_count].xid = xid, xid_count++;
  pthread_cond_broadcast(&news);
  pthread_mutex_unlock(&lock);
}

int nvmlInitWithFlags(unsigned flags) {
  const char *count = getenv("SERVESCOPE_STUB_GPUS");
  (void)flags;
  if (!made) {
    const char *on = getenv("SERVESCOPE_STUB_PROCESSES");
    int gpu, pid, read;
    stub_reset(count ? atoi(count) : 0, 1), moving = 1;
    for (; on && sscanf(on, "%d:%d%n", &gpu, &pid, &read) == 2; on += on[read] ? read + 1 : read)
      stub_process(gpu, pid, 52ull << 30, 90);
  }
  return enter_gpu(-1, __func__);
}
int nvmlShutdown(void) { return enter_gpu(-1, __func__); }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stub"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
  int code = enter_gpu(-1, __func__);
  if (!code) snprintf(text, size, "580.00.stub");
  return code;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpus; return enter_gpu(-1, __func__); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
  *device = (device_t)(size_t)(index + 1);
  ENTER(*device);
  return (int)index < gpus ? 0 : INVALID;
}
/* Neither the index nor out of reach of it: the driver counts them in the order in which it came upon them. */
int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) {
  WHOLE(device);
  *minor = gpus - 1 - index_of(device);
  return 0;
}
int nvmlDeviceGetUUID(device_t device, char *text, unsigned size) {
  ENTER(device);
  if (is_mig(device)) snprintf(text, size, "MIG-stub-%zu", (size_t)device - MIG_HANDLE);
  else snprintf(text, size, "GPU-stub-%d", index_of(device));
  return 0;
}
int nvmlDeviceGetName(device_t device, char *text, unsigned size) {
  ENTER(device);
  snprintf(text, size, is_mig(device) ? "Stub H100 MIG 1g.10gb" : "Stub H100");
  return 0;
}
int nvmlDeviceGetUtilizationRates(device_t device, unsigned *rates) {
  WHOLE(device);
  rates[0] = moving ? 97 : 87, rates[1] = 40;
  return 0;
}
int nvmlDeviceGetMemoryInfo(device_t device, u64 *memory) {
  ENTER(device);
  memory[0] = (is_mig(device) ? 10ull : 80ull) << 30, memory[2] = (is_mig(device) ? 4ull : 60ull) << 30;
  memory[1] = memory[0] - memory[2];
  return 0;
}
int nvmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts) {
  WHOLE(device);
  *milliwatts = moving ? 90000 + 600000 * busy(index_of(device)) : 350500;
  return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(device_t device, unsigned *milliwatts) {
  WHOLE(device);
  *milliwatts = moving && index_of(device) == 5 ? 450000 : 700000;
  return 0;
}
int nvmlDeviceGetPowerManagementDefaultLimit(device_t device, unsigned *milliwatts) {
  WHOLE(device);
  *milliwatts = 700000;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(device_t device, u64 *millijoules) {
  WHOLE(device);
  *millijoules = moving ? (u64)(now() * 1000 - 1.7e12) * 450 : 1500;
  return 0;
}
int nvmlDeviceGetTemperature(device_t device, unsigned sensor, unsigned *celsius) {
  (void)sensor;
  WHOLE(device);
  *celsius = moving ? 40 + 35 * busy(index_of(device)) + (index_of(device) == 5 ? 22 : 0) : 61;
  return 0;
}
int nvmlDeviceGetClockInfo(device_t device, unsigned clock, unsigned *megahertz) {
  WHOLE(device);
  *megahertz = clock == 2 ? 2619 : moving && index_of(device) == 5 ? 1275 : 1980;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(device_t device, unsigned clock, unsigned *megahertz) {
  WHOLE(device);
  *megahertz = clock == 2 ? 2619 : 1980;
  return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(device_t device, u64 *reasons) {
  WHOLE(device);
  *reasons = !moving || index_of(device) == 5 ? 0x44 : 0;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t device, u64 *reasons) { /* as it was called before 535 */
  WHOLE(device);
  *reasons = 0x44;
  return 0;
}
int nvmlDeviceGetTotalEccErrors(device_t device, unsigned kind, unsigned since, u64 *errors) {
  (void)since;
  WHOLE(device);
  *errors = moving && index_of(device) != 2 ? 0 : kind == 1 ? 2 : 9;
  return 0;
}
int nvmlDeviceGetPcieReplayCounter(device_t device, unsigned *replays) { WHOLE(device); *replays = 3; return 0; }
int nvmlDeviceGetRemappedRows(device_t device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                              unsigned *failed) {
  WHOLE(device);
  *correctable = 1, *uncorrectable = 2, *pending = !moving || index_of(device) == 2, *failed = 0;
  return 0;
}
int nvmlDeviceGetFieldValues(device_t device, int count, field_t *fields) {
  WHOLE(device);
  for (int i = 0; i < count; i++) {
    fields[i].result = enter_gpu(index_of(device), fields[i].field == 82 ? "memory temperature" : "counters");
    fields[i].type = 3;
    switch (fields[i].field) {
      case 82: fields[i].type = 1, fields[i].value.u = moving ? 55 + 30 * busy(index_of(device)) : 71; break;
      case 138: case 139: fields[i].value.ull = (u64)(now() * 1000) * 1024; break; /* KiB: 1000 MiB/s */
      case 197: case 198: fields[i].value.ull = (u64)(now() * 1e6) * 100; break;   /* 100 MB/s */
      default: fields[i].result = NOT_SUPPORTED;
    }
  }
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned *count, process_t *found) {
  unsigned there = 0, room = *count;
  ENTER(device);
  for (int i = 0; i < process_count; i++) {
    if (processes[i].gpu != index_of(device)) continue;
    if (found && there < room)
      found[there] = (process_t){processes[i].pid, processes[i].used, is_mig(device) ? 1 : ~0u, is_mig(device) ? 0 : ~0u};
    there++;
  }
  *count = there;
  return there > room || (there && !found) ? INSUFFICIENT_SIZE : 0;
}
int nvmlDeviceGetProcessUtilization(device_t device, process_use_t *found, unsigned *count, u64 since) {
  unsigned there = 0;
  (void)since;
  WHOLE(device);
  if (migs[index_of(device)]) return NOT_SUPPORTED;
  for (int i = 0; i < process_count; i++) {
    if (processes[i].gpu != index_of(device)) continue;
    if (found) found[there] = (process_use_t){processes[i].pid, (u64)(now() * 1e6), processes[i].sm, 30, 0, 0};
    there++;
  }
  if (!there) return NOT_FOUND;
  *count = there;
  return found ? 0 : INSUFFICIENT_SIZE;
}
int nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
  WHOLE(device);
  *current = *pending = migs[index_of(device)] > 0;
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned *count) { WHOLE(device); *count = MIGS; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned index, device_t *part) {
  WHOLE(device);
  if ((int)index >= migs[index_of(device)]) return NOT_FOUND;
  *part = (device_t)(size_t)(MIG_HANDLE + index_of(device) * MIGS + index);
  return 0;
}
int nvmlDeviceGetGpuInstanceId(device_t device, unsigned *id) {
  ENTER(device);
  *id = ((size_t)device - MIG_HANDLE) % MIGS + 1;
  return is_mig(device) ? 0 : NOT_SUPPORTED;
}

int nvmlEventSetCreate(void **set) { *set = (void *)event_set; return enter_gpu(-1, __func__); }
int nvmlEventSetFree(void *set) { (void)set; return 0; }
int nvmlDeviceRegisterEvents(device_t device, u64 types, void *set) {
  (void)set;
  WHOLE(device);
  registered[index_of(device)] = (types & 8) != 0;
  return 0;
}
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned milliseconds) {
  struct timespec until;
  int code = enter_gpu(-1, __func__);
  if (code) return code;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += (milliseconds % 1000) * 1000000L, until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000L;
  until.tv_nsec %= 1000000000L;
  pthread_mutex_lock(&lock);
  while ((size_t)set != event_set || !xid_count || !registered[xids[0].gpu])
    if (pthread_cond_timedwait(&news, &lock, &until)) { pthread_mutex_unlock(&lock); return TIMEOUT; }
  *event = (event_t){(device_t)(size_t)(xids[0].gpu + 1), 8, xids[0].xid, ~0u, ~0u};
  memmove(xids, xids + 1, sizeof xids[0] * --xid_count);
  pthread_mutex_unlock(&lock);
  return 0;
}

int nvmlGpmQueryDeviceSupport(device_t device, unsigned *support) { WHOLE(device); support[1] = 1; return 0; }
int nvmlGpmSampleAlloc(u64 **sample) { *sample = calloc(1, sizeof **sample); return *sample ? 0 : 20; }
int nvmlGpmSampleFree(u64 *sample) { free(sample); return 0; }
int nvmlGpmSampleGet(device_t device, u64 *sample) { WHOLE(device); *sample = index_of(device) + 1; return 0; }
int nvmlGpmMigSampleGet(device_t device, unsigned instance, u64 *sample) {
  WHOLE(device);
  if (!instance || (int)instance > migs[index_of(device)]) return NOT_FOUND;
  *sample = index_of(device) + 1;
  return 0;
}
int nvmlGpmMetricsGet(metrics_t *asked) {
  int gpu = (int)*asked->after - 1, code = enter_gpu(gpu, __func__);
  if (code) return code;
  if (*asked->before != *asked->after) return INVALID;
  for (unsigned i = 0; i < asked->count; i++) {
    metric_t *metric = &asked->metrics[i];
    metric->result = 0;
    switch (metric->id) {
      case 2: metric->value = moving ? 100 * busy(gpu) : 64; break;
      case 3: metric->value = moving ? 40 * busy(gpu) : 25; break;
      case 5: metric->value = moving ? 55 * busy(gpu) : 31; break;
      case 10: metric->value = moving ? 90 * busy(gpu) : 52; break;
      case 20: case 21: metric->value = 120; break; /* MiB/s */
      case 60: case 61: metric->value = 2000; break;
      default: metric->result = NOT_SUPPORTED;
    }
  }
  return 0;
}
