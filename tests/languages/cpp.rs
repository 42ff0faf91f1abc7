//! C++.

use crate::case::{Case, code, files, run};
use crate::common::{Failure, Programs, cases};

const PROGRAMS: Programs = Programs {
    hello: "#include <iostream>\nint main() { std::cout << \"Hello, World!\\n\"; }",
    echo: "#include <iostream>\nint main() { if (std::cin.peek() != EOF) std::cout << std::cin.rdbuf(); }",
    lines: r#"
#include <iostream>
#include <string>
int main() {
    std::string line;
    for (int n = 1; std::getline(std::cin, line); n++) std::cout << n << ':' << line << '\n';
}
"#,
    args: "#include <iostream>\n\
           int main(int n, char **args) { for (int i = 1; i < n; i++) std::cout << '[' << args[i] << \"]\\n\"; }",
    two_files: [
        (
            "main.cpp",
            "#include <iostream>\n#include \"calculator.hpp\"\n\
             int main() { std::cout << \"4 + 5 = \" << add(4, 5) << '\\n'; }",
        ),
        ("calculator.hpp", "#pragma once\ntemplate <typename T> T add(T a, T b) { return a + b; }"),
    ],
    unicode: r#"
#include <iostream>
#include <string>
int main() {
    auto größe = "ünï→🎉";
    std::string line;
    std::cout << größe << '\n';
    std::getline(std::cin, line);
    std::cout << line << '\n' << line << '\n';
}
"#,
    broken: "int main() {\n    return x;\n}\n",
    complaint: "main.cpp: In function ‘int main()’:\nmain.cpp:2:12: error: ‘x’ was not declared in this scope\n",
    exit_3: "#include <iostream>\nint main() { std::cout << \"out\\n\"; std::cerr << \"err\\n\"; return 3; }",
    failing: "#include <iostream>\n#include <stdexcept>\n\
              int main() { std::cout << \"before\" << std::endl; throw std::runtime_error(\"boom\"); }",
    failure: Failure::Dies(
        "SIGABRT",
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  boom\n",
    ),
    endless: "#include <iostream>\n\
              int main() { std::cout << \"before\" << std::endl; for (volatile int i = 0; ; i = i + 1); }",
    hog: r#"
#include <iostream>
#include <list>
#include <vector>
int main() {
    std::cout << "before" << std::endl;
    for (std::list<std::vector<char>> kept; ; ) kept.emplace_back(1 << 20, 'x');
}
"#,
    flood: "#include <iostream>\nint main() { for (;;) std::cout << \"0123456789\\n\"; }",
    network: r#"
#include <arpa/inet.h>
#include <iostream>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

void tell(const char *what, bool works) { std::cout << what << (works ? " yes\n" : " no\n"); }

bool connects(sockaddr_in to) {
    return connect(socket(AF_INET, SOCK_STREAM, 0), reinterpret_cast<sockaddr *>(&to), sizeof to) == 0;
}

int main() {
    sockaddr_in outside{};
    outside.sin_family = AF_INET;
    outside.sin_port = htons(80);
    inet_pton(AF_INET, "1.1.1.1", &outside.sin_addr);
    tell("outside", connects(outside));
    addrinfo *found;
    tell("names", getaddrinfo("example.com", "80", nullptr, &found) == 0);
    sockaddr_in itself{};
    itself.sin_family = AF_INET;
    itself.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto address = reinterpret_cast<sockaddr *>(&itself);
    socklen_t length = sizeof itself;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    bool listens = bind(server, address, length) == 0 && listen(server, 1) == 0
        && getsockname(server, address, &length) == 0;
    tell("itself", listens && connects(itself) && accept(server, nullptr, nullptr) >= 0);
}
"#,
    create: r#"
#include <fstream>
#include <iostream>
#include <string>
int main() {
    for (std::string name; std::cin >> name; )
        std::cout << name << (std::ofstream(name) << 'x' << std::flush ? " yes\n" : " no\n");
}
"#,
    bomb: r#"
#include <chrono>
#include <thread>
int main() {
    for (;;) {
        try { std::thread([] { std::this_thread::sleep_for(std::chrono::hours(1)); }).detach(); }
        catch (const std::system_error &) {}
    }
}
"#,
};

#[test]
fn cpp_programs_run_as_by_the_plain_command() {
    let mut all = special();
    all.extend(cases(&PROGRAMS, true));
    run("cpp", &all);
}

fn special() -> Vec<Case> {
    /// What a container of C++ has by default; the compiler's peak includes what it maps from files.
    const MEMORY: f64 = 512.0 * 1024.0 * 1024.0;
    vec![
        code(
            "the whole library at once",
            "#include <bits/stdc++.h>\nusing namespace std;\n\
             int main() { map<string, vector<int>> m; regex r(\"a+\"); m[\"x\"] = {3, 1, 2};\n\
             ranges::sort(m[\"x\"]); for (int n : m[\"x\"]) cout << n << regex_match(\"aa\", r); cout << endl; }",
        )
        .prints("112131\n")
        .at_most("/compile/memoryPeak", MEMORY),
        code("a compiler that needs too much memory", "#include <bits/stdc++.h>\nint main() {}")
            .with("limits", serde_json::json!({ "memory": 100 << 20 }))
            .is("/status", "compile_error")
            .has("/message", "needed more than the 100 MiB of memory"),
        files(
            "two sources and a header",
            &[
                (
                    "main.cpp",
                    "#include <iostream>\n#include \"lib/answer.hpp\"\nint main() { std::cout << answer() << '\\n'; }",
                ),
                ("lib/answer.hpp", "int answer();"),
                ("lib/answer.cpp", "#include \"answer.hpp\"\nint answer() { return 42; }"),
            ],
        )
        .prints("42\n"),
        code(
            "C++ of 2020",
            "#include <concepts>\n#include <iostream>\n#include <span>\n\
             auto sum(std::span<const int> all) { int s = 0; for (int n : all) s += n; return s; }\n\
             template <std::integral T> T twice(T n) { return 2 * n; }\n\
             int main() { int all[] = {1, 2, 3}; std::cout << twice(sum(all)) << '\\n'; }",
        )
        .prints("12\n"),
        code("a segmentation fault", "int main() { int *volatile p = nullptr; return *const_cast<volatile int *>(p); }")
            .dies_of("SIGSEGV"),
        code("an undefined function", "int f();\nint main() { return f(); }")
            .is("/status", "compile_error")
            .has("/output", "undefined reference to `f()'"),
        code("a warning", "#include <iostream>\nint main() { int unused; std::cout << \"x\\n\"; }")
            .prints("x\n")
            .has("/compile/stderr", "unused variable"),
        code(
            "threads",
            "#include <atomic>\n#include <iostream>\n#include <thread>\n#include <vector>\n\
             int main() { std::atomic<int> sum = 0; { std::vector<std::jthread> all;\n\
             for (int i = 0; i < 20; i++) all.emplace_back([&sum, i] { sum += i; }); }\n\
             std::cout << sum << '\\n'; }",
        )
        .prints("190\n"),
    ]
}
