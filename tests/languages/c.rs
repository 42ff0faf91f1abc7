//! C.

use crate::case::{Case, code, files, run};
use crate::common::{Failure, Programs, cases};

const PROGRAMS: Programs = Programs {
    hello: "#include <stdio.h>\nint main(void) { puts(\"Hello, World!\"); }",
    echo: "#include <stdio.h>\nint main(void) { for (int c; (c = getchar()) != EOF; ) putchar(c); }",
    lines: r#"
#include <stdio.h>
#include <string.h>
int main(void) {
    char line[100];
    for (int n = 1; fgets(line, sizeof line, stdin); n++) {
        line[strcspn(line, "\n")] = 0;
        printf("%d:%s\n", n, line);
    }
}
"#,
    args: "#include <stdio.h>\nint main(int n, char **args) { for (int i = 1; i < n; i++) printf(\"[%s]\\n\", args[i]); }",
    two_files: [
        (
            "main.c",
            "#include <stdio.h>\nint add(int, int);\nint main(void) { printf(\"4 + 5 = %d\\n\", add(4, 5)); }",
        ),
        ("calculator.c", "int add(int a, int b) { return a + b; }"),
    ],
    unicode: r#"
#include <stdio.h>
int main(void) {
    const char *größe = "ünï→🎉";
    char line[100];
    puts(größe);
    if (fgets(line, sizeof line, stdin)) printf("%s%s", line, line);
}
"#,
    broken: "int main(void) {\n    return x;\n}\n",
    complaint: "main.c: In function ‘main’:\nmain.c:2:12: error: ‘x’ undeclared",
    exit_3: "#include <stdio.h>\nint main(void) { puts(\"out\"); fputs(\"err\\n\", stderr); return 3; }",
    failing: "#include <stdio.h>\n\
              int main(void) { puts(\"before\"); fflush(stdout); int *volatile p = 0; return *(volatile int *)p; }",
    failure: Failure::Dies("SIGSEGV", ""),
    endless: "#include <stdio.h>\n\
              int main(void) { puts(\"before\"); fflush(stdout); for (volatile int i = 0; ; i++); }",
    hog: r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    puts("before");
    fflush(stdout);
    for (;;) memset(malloc(1 << 20), 1, 1 << 20);
}
"#,
    flood: "#include <stdio.h>\nint main(void) { for (;;) puts(\"0123456789\"); }",
    network: r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(const char *what, int works) { printf("%s %s\n", what, works ? "yes" : "no"); }

static int connects(struct sockaddr_in *to) {
    return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)to, sizeof *to) == 0;
}

int main(void) {
    struct sockaddr_in outside = { .sin_family = AF_INET, .sin_port = htons(80) };
    inet_pton(AF_INET, "1.1.1.1", &outside.sin_addr);
    tell("outside", connects(&outside));
    struct addrinfo *found;
    tell("names", getaddrinfo("example.com", "80", NULL, &found) == 0);
    struct sockaddr_in itself = { .sin_family = AF_INET };
    itself.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof itself;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    int listens = bind(server, (struct sockaddr *)&itself, length) == 0 && listen(server, 1) == 0
        && getsockname(server, (struct sockaddr *)&itself, &length) == 0;
    tell("itself", listens && connects(&itself) && accept(server, NULL, NULL) >= 0);
}
"#,
    create: r#"
#include <stdio.h>
int main(void) {
    char name[100];
    while (scanf("%99s", name) == 1) {
        FILE *file = fopen(name, "w");
        printf("%s %s\n", name, file && fputs("x", file) >= 0 && fclose(file) == 0 ? "yes" : "no");
    }
}
"#,
    bomb: "#include <unistd.h>\nint main(void) { for (;;) fork(); }",
};

#[test]
fn c_programs_run_as_by_the_plain_command() {
    let mut all = special();
    all.extend(cases(&PROGRAMS, true));
    run("c", &all);
}

fn special() -> Vec<Case> {
    vec![
        files(
            "a header in a folder",
            &[
                (
                    "main.c",
                    "#include <stdio.h>\n#include \"lib/answer.h\"\nint main(void) { printf(\"%d\\n\", answer()); }",
                ),
                ("lib/answer.h", "int answer(void);"),
                ("lib/answer.c", "#include \"answer.h\"\nint answer(void) { return 42; }"),
            ],
        )
        .prints("42\n"),
        code(
            "the mathematical library",
            "#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
             int main(int n, char **a) { printf(\"%.3f\\n\", sqrt(atof(a[n - 1]))); }",
        )
        .with("args", serde_json::json!(["2"]))
        .prints("1.414\n"),
        code("a warning", "#include <stdio.h>\nint main(void) { int unused; puts(\"x\"); }")
            .prints("x\n")
            .has("/compile/stderr", "unused variable"),
        code("a program without main", "int x;")
            .is("/status", "compile_error")
            .has("/output", "undefined reference to `main'"),
        code("abort", "#include <stdlib.h>\nint main(void) { abort(); }").dies_of("SIGABRT"),
        code(
            "a division by zero",
            "int main(int n, char **a) { volatile int zero = n - 1; return 100 / zero; }",
        )
        .dies_of("SIGFPE"),
        code("a signal of its own", "#include <signal.h>\nint main(void) { raise(SIGKILL); }").dies_of("SIGKILL"),
        code("too deep a recursion", "int f(volatile int *n) { volatile int m = *n + 1; return f(&m) + m; }\nint main(void) { int n = 0; return f(&n); }")
            .dies_of("SIGSEGV"),
        code(
            "output that was not flushed",
            "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf(\"no line end\"); exit(0); }",
        )
        .prints("no line end"),
        code(
            "threads",
            "#include <pthread.h>\n#include <stdio.h>\nstatic void *f(void *n) { return n; }\n\
             int main(void) { long sum = 0; pthread_t t[20];\n\
             for (long i = 0; i < 20; i++) pthread_create(&t[i], 0, f, (void *)i);\n\
             for (int i = 0; i < 20; i++) { void *n; pthread_join(t[i], &n); sum += (long)n; }\n\
             printf(\"%ld\\n\", sum); }",
        )
        .prints("190\n"),
    ]
}
