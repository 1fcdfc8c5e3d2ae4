// Makes recorded calls through the header, in several threads, and compares what they return; then makes calls that are
// wrong.
//
//     replay INDEX CALLS shared 4     threads share a drafter whose calibration is fixed
//     replay INDEX CALLS own 2        each thread has a drafter, which learns
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tasc.h>

#define CHECK(condition)                                                                                           \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, tasc_last_error());     \
            exit(1);                                                                                               \
        }                                                                                                          \
    } while (0)

enum { MOST = 4096 };

static const char *index_path, *calls_path;
static tasc_drafter *shared;

static tasc_drafter *open_index(int fixed) {
    tasc_options options = {0};
    options.size = sizeof options;
    options.fixed = fixed;
    tasc_drafter *drafter;
    CHECK(tasc_open(index_path, &options, &drafter) == TASC_OK);
    return drafter;
}

static size_t number(FILE *calls) {
    size_t value;
    CHECK(fscanf(calls, "%zu", &value) == 1 && value <= MOST);
    return value;
}

static size_t ids(FILE *calls, uint32_t *into) {
    size_t count = number(calls);
    for (size_t k = 0; k < count; k++) CHECK(fscanf(calls, "%" SCNu32, &into[k]) == 1);
    return count;
}

static void *replay(void *unused) {
    (void)unused;
    FILE *calls = fopen(calls_path, "r");
    CHECK(calls != NULL);
    tasc_drafter *drafter = shared != NULL ? shared : open_index(0);
    static _Thread_local uint32_t list[MOST], drafted[MOST];
    static _Thread_local double costs[MOST];
    static _Thread_local float probabilities[MOST];
    static _Thread_local char text[MOST];
    static _Thread_local tasc_request *requests[MOST];
    size_t started = 0;
    char name[16];
    while (fscanf(calls, "%15s", name) == 1) {
        if (strcmp(name, "start") == 0) {
            size_t prompt = ids(calls, list), bytes = ids(calls, drafted);
            for (size_t k = 0; k < bytes; k++) text[k] = (char)drafted[k];
            const char *input = bytes > 0 ? text : NULL;
            CHECK(started < MOST);
            CHECK(tasc_start(drafter, list, prompt, input, bytes, &requests[started]) == TASC_OK);
            started++;
            continue;
        }
        tasc_request *request = requests[number(calls)];
        if (strcmp(name, "draft") == 0) {
            size_t max_tokens = number(calls), num_costs = number(calls), len = MOST;
            for (size_t k = 0; k < num_costs; k++) CHECK(fscanf(calls, "%lf", &costs[k]) == 1);
            const double *given = num_costs > 0 ? costs : NULL;
            // memory of just this size, so that a write behind it is seen by valgrind
            uint32_t *tokens = malloc(max_tokens * sizeof *tokens + 1);
            CHECK(tasc_draft(request, max_tokens, given, num_costs, tokens, probabilities, &len) == TASC_OK);
            CHECK(ids(calls, list) == len);
            CHECK(len == 0 || memcmp(list, tokens, len * sizeof *tokens) == 0);
            CHECK(number(calls) == len);
            for (size_t k = 0; k < len; k++) {
                float wanted;
                CHECK(fscanf(calls, "%f", &wanted) == 1 && wanted == probabilities[k]);
            }
            free(tokens);
        } else if (strcmp(name, "update") == 0) {
            size_t count = ids(calls, list);
            CHECK(tasc_update(request, list, count) == TASC_OK);
        } else {
            CHECK(strcmp(name, "finish") == 0);
            CHECK(tasc_finish(request, (int)number(calls)) == TASC_OK);
            CHECK(tasc_finish(request, 0) == TASC_ERROR_HANDLE);
        }
    }
    CHECK(started > 0);
    if (shared == NULL) CHECK(tasc_close(drafter) == TASC_OK);
    fclose(calls);
    return NULL;
}

static void wrong_calls(void) {
    tasc_drafter *drafter = open_index(1);
    tasc_request *request, *foreign;
    uint32_t id = 7, none = UINT32_MAX;
    size_t len = 1;
    double falling[] = {2.0, 1.0};
    CHECK(tasc_open("no such file", NULL, &shared) == TASC_ERROR_IO && shared == NULL);
    CHECK(strstr(tasc_last_error(), "no such file") != NULL);
    CHECK(tasc_open(calls_path, NULL, &shared) == TASC_ERROR_FORMAT);
    CHECK(tasc_open(index_path, NULL, NULL) == TASC_ERROR_ARGUMENT);
    CHECK(tasc_start(drafter, NULL, 3, NULL, 0, &request) == TASC_ERROR_ARGUMENT && request == NULL);
    CHECK(tasc_start(drafter, &none, 1, NULL, 0, &request) == TASC_ERROR_ARGUMENT);
    CHECK(tasc_start(drafter, &id, 1, "\xff", 1, &request) == TASC_ERROR_ARGUMENT);
    CHECK(strcmp(tasc_last_error(), "input is not UTF-8 from byte 0 on") == 0);
    CHECK(tasc_start((const tasc_drafter *)&id, &id, 1, NULL, 0, &request) == TASC_ERROR_HANDLE);
    CHECK(tasc_start(drafter, &id, 1, "a", 1, &request) == TASC_OK);
    CHECK(tasc_start((const tasc_drafter *)request, &id, 1, NULL, 0, &foreign) == TASC_ERROR_HANDLE);
    CHECK(tasc_finish(request, 0) == TASC_OK);
    CHECK(tasc_start(drafter, NULL, 0, NULL, 0, &request) == TASC_OK);
    CHECK(tasc_draft(request, 1, NULL, 0, NULL, NULL, &len) == TASC_ERROR_ARGUMENT && len == 0);
    CHECK(tasc_draft(request, 1, falling, 2, &id, NULL, &len) == TASC_ERROR_ARGUMENT);
    CHECK(tasc_draft(request, 0, NULL, 0, NULL, NULL, &len) == TASC_OK && len == 0);
    CHECK(tasc_update(request, NULL, 0) == TASC_OK);
    CHECK(tasc_close(drafter) == TASC_OK);
    CHECK(tasc_close(drafter) == TASC_ERROR_HANDLE);
    CHECK(tasc_update(request, &id, 1) == TASC_OK); // a request outlives its drafter
    CHECK(tasc_finish(request, 1) == TASC_ERROR_NOT_LEARNED);
    CHECK(tasc_update(request, &id, 1) == TASC_ERROR_HANDLE);
    CHECK(tasc_finish(NULL, 1) == TASC_OK && tasc_close(NULL) == TASC_OK);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    index_path = argv[1];
    calls_path = argv[2];
    int count = atoi(argv[4]);
    if (strcmp(argv[3], "shared") == 0) shared = open_index(1);
    pthread_t threads[16];
    for (int k = 0; k < count && k < 16; k++) CHECK(pthread_create(&threads[k], NULL, replay, NULL) == 0);
    for (int k = 0; k < count && k < 16; k++) pthread_join(threads[k], NULL);
    CHECK(tasc_close(shared) == TASC_OK);
    wrong_calls();
    printf("tasc %s: %d threads returned what was recorded\n", tasc_version(), count);
    return 0;
}
