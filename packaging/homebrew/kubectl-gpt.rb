# Template of the formula: packaging/homebrew/render fills it in for a release, and the result is published to the tap.
class KubectlGpt < Formula
  desc "Find problems in Kubernetes clusters, root causes first"
  homepage "https://github.com/kubectl-gpt/kubectl-gpt"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "https://github.com/kubectl-gpt/kubectl-gpt/releases/download/v@VERSION@/kubectl-gpt-aarch64-apple-darwin.tar.gz"
      sha256 "@aarch64-apple-darwin@"
    end
    on_intel do
      url "https://github.com/kubectl-gpt/kubectl-gpt/releases/download/v@VERSION@/kubectl-gpt-x86_64-apple-darwin.tar.gz"
      sha256 "@x86_64-apple-darwin@"
    end
  end

  on_linux do
    on_arm do
      url "https://github.com/kubectl-gpt/kubectl-gpt/releases/download/v@VERSION@/kubectl-gpt-aarch64-unknown-linux-musl.tar.gz"
      sha256 "@aarch64-unknown-linux-musl@"
    end
    on_intel do
      url "https://github.com/kubectl-gpt/kubectl-gpt/releases/download/v@VERSION@/kubectl-gpt-x86_64-unknown-linux-musl.tar.gz"
      sha256 "@x86_64-unknown-linux-musl@"
    end
  end

  def install
    bin.install "kubectl-gpt", "kubectl_complete-gpt"
    bash_completion.install "completions/kubectl-gpt.bash" => "kubectl-gpt"
    zsh_completion.install "completions/kubectl-gpt.zsh" => "_kubectl-gpt"
    fish_completion.install "completions/kubectl-gpt.fish"
    man1.install Dir["man/*.1"]
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/kubectl-gpt --version")
    (testpath/"service.yaml").write <<~YAML
      {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
    YAML
    assert_match "Service", shell_output("#{bin}/kubectl-gpt analyze -f service.yaml -o json --fail-on never")
  end
end
