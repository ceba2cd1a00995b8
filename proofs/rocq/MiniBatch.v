(** The Convergence Theorem read as Algorithm 1 uses it: the mean loss of a mini-batch of m instances.

    In words: with K = Z P Zᵀ symmetric and positive semi-definite (P is enough), the step does not raise the mean loss,
    whatever W, the labels and n_c, if η λ_max(K / m) ≤ 4. The bound on the eigenvalues is written as
    η vᵀKv ≤ 4 m ‖v‖² for all v. Counterexample.v shows that it cannot be left out, Sharpness.v that 4 cannot be raised. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions QuadraticForms LogSumExp OneInstance.
Open Scope R_scope.

(** Z P Zᵀ, m × m. *)
Definition feature_gram (d_in : nat) (Z P : matrix) : matrix :=
  fun k l => Σ a < d_in, Σ b < d_in, Z k a * P a b * Z l b.

Lemma feature_gram_symmetric d_in m Z P : symmetric d_in P -> symmetric m (feature_gram d_in Z P).
Proof.
  intros same k l _ _. unfold feature_gram. rewrite sum_swap.
  apply sum_ext; intros b row. apply sum_ext; intros a column. rewrite same by assumption. ring.
Qed.

(** vᵀ(Z P Zᵀ)v = (Zᵀv)ᵀ P (Zᵀv). *)
Lemma feature_gram_psd d_in m Z P : positive_semidefinite d_in P -> positive_semidefinite m (feature_gram d_in Z P).
Proof.
  intros psd v.
  replace (quadratic_form m (feature_gram d_in Z P) v)
    with (quadratic_form d_in P (fun a => Σ k < m, v k * Z k a)); [apply psd|].
  transitivity (Σ a < d_in, Σ b < d_in, Σ k < m, Σ l < m, v k * (Z k a * P a b * Z l b) * v l).
  - unfold quadratic_form. apply sum_ext; intros a _. apply sum_ext; intros b _.
    rewrite <- !sum_scale_right. apply sum_ext; intros k _. rewrite <- sum_scale. apply sum_ext; intros l _. ring.
  - transitivity (Σ k < m, Σ l < m, Σ a < d_in, Σ b < d_in, v k * (Z k a * P a b * Z l b) * v l).
    + rewrite (sum_ext d_in _ (fun a => Σ k < m, Σ b < d_in, Σ l < m, v k * (Z k a * P a b * Z l b) * v l))
        by (intros; apply sum_swap).
      rewrite sum_swap. apply sum_ext; intros k _.
      rewrite (sum_ext d_in _ (fun a => Σ l < m, Σ b < d_in, v k * (Z k a * P a b * Z l b) * v l))
        by (intros; apply sum_swap).
      apply sum_swap.
    + unfold quadratic_form, feature_gram. apply sum_ext; intros k _. apply sum_ext; intros l _.
      rewrite <- sum_scale, <- sum_scale_right. apply sum_ext; intros a _.
      rewrite <- sum_scale, <- sum_scale_right. reflexivity.
Qed.

(** 0 ≤ K ≤ c I gives ‖Kv‖² ≤ c vᵀKv: look at the form at v − Kv / c. *)
Lemma square_norm_product m K c v :
  0 < c -> symmetric m K -> positive_semidefinite m K ->
  (forall w, quadratic_form m K w <= c * square_norm m w) ->
  square_norm m (product m K v) <= c * quadratic_form m K v.
Proof.
  intros c_pos same psd bound. set (w := product m K v).
  assert (nonneg := psd (fun k => v k + (- / c) * w k)).
  rewrite quadratic_form_line in nonneg by assumption. specialize (bound w).
  change (Σ k < m, w k * product m K v k) with (square_norm m w) in nonneg.
  assert (inv_pos : 0 < / c) by (apply Rinv_0_lt_compat; assumption).
  assert (scaled : / c * / c * quadratic_form m K w <= / c * square_norm m w).
  { replace (/ c * square_norm m w) with (/ c * / c * (c * square_norm m w)) by (field; lra).
    apply Rmult_le_compat_l; [nra|assumption]. }
  apply Rmult_le_reg_l with (/ c); [assumption|].
  replace (/ c * (c * quadratic_form m K v)) with (quadratic_form m K v) by (field; lra). lra.
Qed.

(** A bound B on the second order term of log-sum-exp is one on that of the loss. *)
Lemma cross_entropy_upper_bound n_c f f' i B :
  (i < n_c)%nat ->
  ln (Σ j < n_c, exp (f j + (f' j - f j)))
    <= ln (Σ j < n_c, exp (f j)) + (Σ j < n_c, softmax n_c f j * (f' j - f j)) + B ->
  cross_entropy n_c f' i <= cross_entropy n_c f i + (Σ j < n_c, residual n_c f i j * (f' j - f j)) + B.
Proof.
  intros label smooth. set (h := fun j => f' j - f j).
  rewrite (sum_ext n_c (fun j => exp (f j + (f' j - f j))) (fun j => exp (f' j))) in smooth
    by (intros; f_equal; ring).
  unfold cross_entropy.
  replace (Σ j < n_c, residual n_c f i j * (f' j - f j)) with ((Σ j < n_c, softmax n_c f j * (f' j - f j)) - (f' i - f i)).
  - lra.
  - change (f' i - f i) with (h i). rewrite <- (sum_one_hot n_c i h), <- sum_minus by assumption.
    apply sum_ext; intros; unfold residual, h; ring.
Qed.

(** f'_k = f_k − (η/m) Σ_l K_kl (softmax(f_l) − e_(y_l)). *)
Lemma logits_after_batch_step n_c d_in m Z y W eta P k j :
  symmetric m (feature_gram d_in Z P) -> (k < m)%nat ->
  logits d_in (step d_in eta W (gradient_batch n_c d_in m Z y W) P) (Z k) j
  = logits d_in W (Z k) j
    - product m (fun k l => eta / INR m * feature_gram d_in Z P k l)
        (fun l => residual n_c (logits d_in W (Z l)) (y l) j) k.
Proof.
  intros same inside. rewrite logits_of_step. f_equal. unfold gradient_batch, gradient, product.
  rewrite (sum_ext m _ (fun l => eta / INR m * (Σ b < d_in, Σ a < d_in,
      residual n_c (logits d_in W (Z l)) (y l) j * Z l b * P b a * Z k a))).
  - rewrite sum_scale. unfold Rdiv. rewrite Rmult_assoc. f_equal.
    rewrite (sum_swap m d_in), <- sum_scale. apply sum_ext; intros b _.
    rewrite (sum_swap m d_in), <- sum_scale. apply sum_ext; intros a _.
    rewrite !sum_scale_right. ring.
  - intros l column. rewrite (same k l), Rmult_assoc by assumption. f_equal.
    unfold feature_gram. rewrite <- sum_scale_right. apply sum_ext; intros b _.
    rewrite <- sum_scale_right. apply sum_ext; intros a _. ring.
Qed.

(** For every class the step's first and second order terms add up to at most 0. *)
Lemma descent_of_one_class m K r :
  symmetric m K -> positive_semidefinite m K -> (forall v, quadratic_form m K v <= 4 * square_norm m v) ->
  (Σ k < m, (r k * - product m K r k + / 4 * (product m K r k * product m K r k))) <= 0.
Proof.
  intros same psd bound.
  assert (below := square_norm_product m K 4 r ltac:(lra) same psd bound).
  rewrite quadratic_form_product in below. unfold square_norm in below.
  rewrite sum_plus, sum_scale.
  rewrite (sum_ext m (fun k => r k * - product m K r k) (fun k => -1 * (r k * product m K r k))) by (intros; ring).
  rewrite sum_scale. lra.
Qed.

(** The theorem for the matrix that decides, K = Z P Zᵀ: an indefinite P can pass. *)
Theorem mini_batch_feature_gram n_c d_in m Z y W eta P :
  (0 < m)%nat -> (forall k, (k < m)%nat -> (y k < n_c)%nat) -> 0 <= eta ->
  symmetric m (feature_gram d_in Z P) -> positive_semidefinite m (feature_gram d_in Z P) ->
  (forall v, eta * quadratic_form m (feature_gram d_in Z P) v <= 4 * INR m * square_norm m v) ->
  J_batch n_c d_in m Z y (step d_in eta W (gradient_batch n_c d_in m Z y W) P) <= J_batch n_c d_in m Z y W.
Proof.
  intros some labels eta_nonneg same psd bound.
  assert (m_pos : 0 < INR m) by (apply lt_0_INR; assumption).
  assert (inv_pos : 0 < / INR m) by (apply Rinv_0_lt_compat; assumption).
  set (W' := step d_in eta W (gradient_batch n_c d_in m Z y W) P).
  set (K := fun k l => eta / INR m * feature_gram d_in Z P k l).
  assert (form : forall v, quadratic_form m K v = eta / INR m * quadratic_form m (feature_gram d_in Z P) v).
  { intros v. unfold quadratic_form, K. rewrite <- sum_scale. apply sum_ext; intros k _.
    rewrite <- sum_scale. apply sum_ext; intros; ring. }
  assert (K_symmetric : symmetric m K) by (intros k l row column; unfold K; rewrite same by assumption; reflexivity).
  assert (K_psd : positive_semidefinite m K).
  { intros v. rewrite form. specialize (psd v). apply Rmult_le_pos; [|assumption]. unfold Rdiv. nra. }
  assert (K_bound : forall v, quadratic_form m K v <= 4 * square_norm m v).
  { intros v. rewrite form. specialize (bound v). apply Rmult_le_reg_l with (INR m); [assumption|].
    replace (INR m * (eta / INR m * quadratic_form m (feature_gram d_in Z P) v))
      with (eta * quadratic_form m (feature_gram d_in Z P) v) by (field; lra). lra. }
  unfold J_batch, Rdiv. apply Rmult_le_compat_r; [lra|].
  set (r := fun k j => residual n_c (logits d_in W (Z k)) (y k) j).
  apply Rle_trans with (Σ k < m, (J n_c d_in (Z k) (y k) W
      + (Σ j < n_c, (r k j * - product m K (fun l => r l j) k
                     + / 4 * (product m K (fun l => r l j) k * product m K (fun l => r l j) k))))).
  - apply sum_le; intros k inside. unfold J.
    assert (label := labels k inside).
    eapply Rle_trans.
    { apply (cross_entropy_upper_bound n_c (logits d_in W (Z k))); [assumption|].
      apply (log_sum_exp_half_smooth n_c _ (fun j => logits d_in W' (Z k) j - logits d_in W (Z k) j)). lia. }
    rewrite sum_plus, <- Rplus_assoc. apply Req_le.
    assert (move : forall j, logits d_in W' (Z k) j - logits d_in W (Z k) j = - product m K (fun l => r l j) k).
    { intros j. unfold W'. rewrite logits_after_batch_step by assumption. unfold K, r. ring. }
    f_equal; [f_equal|].
    + apply sum_ext; intros j _. rewrite move. reflexivity.
    + unfold square_norm. rewrite <- sum_scale. apply sum_ext; intros j _. rewrite move. ring.
  - rewrite sum_plus, sum_swap.
    assert (classes : (Σ j < n_c, Σ k < m, (r k j * - product m K (fun l => r l j) k
               + / 4 * (product m K (fun l => r l j) k * product m K (fun l => r l j) k))) <= 0).
    { apply Rle_trans with (Σ j < n_c, 0); [|rewrite sum_constant; lra].
      apply sum_le; intros j _. apply (descent_of_one_class m K (fun k => r k j)); assumption. }
    lra.
Qed.

Theorem mini_batch n_c d_in m Z y W eta P :
  (0 < m)%nat -> (forall k, (k < m)%nat -> (y k < n_c)%nat) -> 0 <= eta ->
  symmetric d_in P -> positive_semidefinite d_in P ->
  (forall v, eta * quadratic_form m (feature_gram d_in Z P) v <= 4 * INR m * square_norm m v) ->
  J_batch n_c d_in m Z y (step d_in eta W (gradient_batch n_c d_in m Z y W) P) <= J_batch n_c d_in m Z y W.
Proof.
  intros some labels eta_nonneg same psd bound. apply mini_batch_feature_gram; try assumption.
  - apply feature_gram_symmetric. assumption.
  - apply feature_gram_psd. assumption.
Qed.

(** A bound that looks at the residuals R (m × n_c) of this W and these labels: with h = K R / m, the step −η h of the
    logits, η Σ_k (max_j h_kj − min_j h_kj)² ≤ 8 Σ_k Σ_j R_kj h_kj is enough. K need not be semi-definite. *)
Theorem mini_batch_of_these_residuals n_c d_in m Z y W eta P low high :
  (0 < m)%nat -> (forall k, (k < m)%nat -> (y k < n_c)%nat) -> 0 <= eta -> symmetric d_in P ->
  let R k j := residual n_c (logits d_in W (Z k)) (y k) j in
  let h k j := product m (feature_gram d_in Z P) (fun l => R l j) k / INR m in
  (forall k j, (k < m)%nat -> (j < n_c)%nat -> low k <= h k j <= high k) ->
  eta * (Σ k < m, (high k - low k) * (high k - low k)) <= 8 * (Σ k < m, Σ j < n_c, R k j * h k j) ->
  J_batch n_c d_in m Z y (step d_in eta W (gradient_batch n_c d_in m Z y W) P) <= J_batch n_c d_in m Z y W.
Proof.
  intros some labels eta_nonneg P_symmetric R h within small.
  assert (m_pos : 0 < INR m) by (apply lt_0_INR; assumption).
  assert (inv_pos : 0 < / INR m) by (apply Rinv_0_lt_compat; assumption).
  assert (same := feature_gram_symmetric d_in m Z P P_symmetric).
  set (W' := step d_in eta W (gradient_batch n_c d_in m Z y W) P).
  assert (move : forall k j, (k < m)%nat -> logits d_in W' (Z k) j - logits d_in W (Z k) j = - eta * h k j).
  { intros k j inside. unfold W'. rewrite logits_after_batch_step by assumption.
    replace (product m (fun k l => eta / INR m * feature_gram d_in Z P k l)
               (fun l => residual n_c (logits d_in W (Z l)) (y l) j) k) with (eta * h k j); [ring|].
    unfold h, product, Rdiv. rewrite <- sum_scale_right, <- sum_scale. apply sum_ext; intros; unfold R; ring. }
  unfold J_batch, Rdiv. apply Rmult_le_compat_r; [lra|].
  apply Rle_trans with (Σ k < m, (J n_c d_in (Z k) (y k) W
      + (- eta * (Σ j < n_c, R k j * h k j) + eta * eta / 8 * ((high k - low k) * (high k - low k))))).
  - apply sum_le; intros k inside. assert (label := labels k inside). unfold J.
    eapply Rle_trans.
    { apply (cross_entropy_upper_bound n_c (logits d_in W (Z k))); [assumption|].
      apply (log_sum_exp_range n_c _ (fun j => logits d_in W' (Z k) j - logits d_in W (Z k) j)
               (- eta * high k) (- eta * low k)); [lia|].
      intros j class. rewrite move by assumption. specialize (within k j inside class). split; nra. }
    rewrite Rplus_assoc. apply Req_le. f_equal. f_equal; [|field].
    rewrite <- sum_scale. apply sum_ext; intros j _. rewrite move by assumption. unfold R. ring.
  - rewrite sum_plus, sum_plus, !sum_scale.
    assert (eta * (eta * (Σ k < m, (high k - low k) * (high k - low k)))
            <= eta * (8 * (Σ k < m, Σ j < n_c, R k j * h k j))) by (apply Rmult_le_compat_l; assumption).
    lra.
Qed.
