(** Log-sum-exp along a line: its first and second derivative, and what bounds them.

    In words: ln Σ exp f_j is ½-smooth,
        ln Σ exp(f_j + h_j) ≤ ln Σ exp f_j + ⟨softmax(f), h⟩ + ¼ ‖h‖²,
    because no eigenvalue of its Hessian diag(p) − p pᵀ exceeds ½; and with all h_j in [a, b], ⅛ (b − a)² takes the place
    of ¼ ‖h‖² (Hoeffding's lemma). Not in the paper, which looks at one instance; the mini-batch theorems rest on it. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions.
Open Scope R_scope.

Lemma sum_exp_pos n_c f : (0 < n_c)%nat -> 0 < (Σ j < n_c, exp (f j)).
Proof. intros some. apply sum_pos; [assumption|intros; apply exp_pos]. Qed.

Lemma softmax_pos n_c f j : (0 < n_c)%nat -> 0 < softmax n_c f j.
Proof.
  intros some. apply Rdiv_lt_0_compat; [apply exp_pos|apply sum_exp_pos; assumption].
Qed.

Lemma softmax_le_1 n_c f j : (j < n_c)%nat -> softmax n_c f j <= 1.
Proof.
  intros inside. assert (0 < (Σ l < n_c, exp (f l))) by (apply sum_exp_pos; lia).
  unfold softmax. apply Rmult_le_reg_r with (Σ l < n_c, exp (f l)); [assumption|].
  replace (exp (f j) / (Σ l < n_c, exp (f l)) * (Σ l < n_c, exp (f l))) with (exp (f j)) by (field; lra).
  rewrite Rmult_1_l. apply (term_le_sum n_c (fun l => exp (f l))); [assumption|].
  intros; left; apply exp_pos.
Qed.

Lemma softmax_total n_c f : (0 < n_c)%nat -> (Σ j < n_c, softmax n_c f j) = 1.
Proof.
  intros some. assert (0 < (Σ l < n_c, exp (f l))) by (apply sum_exp_pos; assumption).
  unfold softmax, Rdiv. rewrite sum_scale_right. field. lra.
Qed.

(** The Hessian's quadratic form hᵀ(diag(p) − p pᵀ)h: the variance of h under p. *)
Definition variance (n : nat) (p h : vector) : R :=
  (Σ j < n, p j * (h j * h j)) - (Σ j < n, p j * h j) * (Σ j < n, p j * h j).

(** It is at most Σ 2 p_j (1 − p_j) h_j² (Gershgorin), and so at most ½ ‖h‖². *)
Lemma variance_le_half n p h : (Σ j < n, p j) = 1 -> (forall j, 0 <= p j) -> variance n p h <= square_norm n h / 2.
Proof.
  intros total nonneg. change (sum n p = 1) in total. unfold variance, square_norm.
  assert (below : (Σ j < n, (2 * (p j * p j * (h j * h j)) - p j * (h j * h j)))
                  <= (Σ j < n, p j * h j) * (Σ j < n, p j * h j)).
  { rewrite sum_product.
    replace (Σ j < n, (2 * (p j * p j * (h j * h j)) - p j * (h j * h j)))
      with (Σ j < n, Σ k < n, (one_hot j k * (2 * (p j * p k * (h j * h k)))
                               - (p j * (h j * h j) * p k + p j * (p k * (h k * h k))) / 2)).
    - apply sum_le; intros j _. apply sum_le; intros k _.
      assert (0 <= p j * p k) by (apply Rmult_le_pos; apply nonneg).
      destruct (Nat.eq_dec j k) as [->|other].
      + rewrite one_hot_same. nra.
      + rewrite one_hot_other by assumption.
        assert (0 <= (h j + h k) * (h j + h k)) by apply Rle_0_sqr. nra.
    - unfold Rdiv.
      rewrite (sum_ext n _ (fun j => 2 * (p j * p j * (h j * h j))
                                     - (p j * (h j * h j) + p j * (Σ k < n, p k * (h k * h k))) * / 2)).
      + rewrite sum_minus, sum_scale_right, sum_plus, sum_scale_right, total, sum_minus. field.
      + intros j inside.
        rewrite sum_minus, sum_one_hot, sum_scale_right, sum_plus, !sum_scale, total by assumption. ring. }
  rewrite sum_minus, sum_scale in below.
  apply Rle_trans with (Σ j < n, 2 * (p j * (1 - p j) * (h j * h j))).
  - rewrite sum_scale, (sum_ext n (fun j => p j * (1 - p j) * (h j * h j))
                          (fun j => p j * (h j * h j) - p j * p j * (h j * h j))) by (intros; ring).
    rewrite sum_minus. lra.
  - unfold Rdiv. rewrite <- sum_scale_right. apply sum_le; intros j _.
    assert (0 <= (2 * p j - 1) * (2 * p j - 1)) by apply Rle_0_sqr.
    assert (0 <= h j * h j) by apply Rle_0_sqr. nra.
Qed.

(** A variance is at most a quarter of the squared range (Popoviciu): Σ p_j (h_j − a)(b − h_j) ≥ 0. *)
Lemma variance_le_range n p h a b :
  (Σ j < n, p j) = 1 -> (forall j, 0 <= p j) -> (forall j, (j < n)%nat -> a <= h j <= b) ->
  variance n p h <= (b - a) * (b - a) / 4.
Proof.
  intros total nonneg within. change (sum n p = 1) in total. unfold variance.
  set (mean := Σ j < n, p j * h j).
  assert (between : 0 <= (Σ j < n, ((a + b) * (p j * h j) - a * b * p j - p j * (h j * h j)))).
  { apply sum_nonneg; intros j inside. specialize (within j inside). specialize (nonneg j).
    replace ((a + b) * (p j * h j) - a * b * p j - p j * (h j * h j)) with (p j * ((h j - a) * (b - h j))) by ring.
    apply Rmult_le_pos; [assumption|]. apply Rmult_le_pos; lra. }
  rewrite !sum_minus, !sum_scale, total in between. fold mean in between.
  assert (0 <= (2 * mean - (a + b)) * (2 * mean - (a + b))) by apply Rle_0_sqr. nra.
Qed.

(** d/dt Σ c_j exp(f_j + t h_j) = Σ c_j h_j exp(f_j + t h_j). *)
Lemma derivable_sum_exp n (c f h : vector) t :
  derivable_pt_lim (fun s => Σ j < n, c j * exp (f j + s * h j)) t (Σ j < n, c j * h j * exp (f j + t * h j)).
Proof.
  apply derivable_sum; intros j _.
  replace (c j * h j * exp (f j + t * h j)) with (c j * (exp (f j + t * h j) * (0 + (1 * h j + t * 0)))) by ring.
  apply (derivable_pt_lim_scal (fun s => exp (f j + s * h j))).
  apply (derivable_pt_lim_comp (fun s => f j + s * h j) exp); [|apply derivable_pt_lim_exp].
  apply (derivable_pt_lim_plus (fun _ => f j) (fun s => s * h j)); [apply derivable_pt_lim_const|].
  apply (derivable_pt_lim_mult id (fun _ => h j)); [apply derivable_pt_lim_id|apply derivable_pt_lim_const].
Qed.

(** d/dt ln Σ exp(f_j + t h_j) = ⟨softmax(f + t h), h⟩. *)
Lemma derivable_log_sum_exp n f h t :
  (0 < n)%nat ->
  derivable_pt_lim (fun s => ln (Σ j < n, exp (f j + s * h j))) t
    (Σ j < n, softmax n (fun l => f l + t * h l) j * h j).
Proof.
  intros some.
  assert (0 < (Σ j < n, exp (f j + t * h j))) by (apply sum_exp_pos with (f := fun j => f j + t * h j); assumption).
  replace (Σ j < n, softmax n (fun l => f l + t * h l) j * h j)
    with (/ (Σ j < n, exp (f j + t * h j)) * (Σ j < n, 1 * h j * exp (f j + t * h j))).
  - apply (derivable_pt_lim_comp (fun s => Σ j < n, exp (f j + s * h j)) ln).
    + assert (line := derivable_sum_exp n (fun _ => 1) f h t). simpl in line.
      intros eps pos. destruct (line eps pos) as [delta close]. exists delta. intros r nonzero small.
      specialize (close r nonzero small).
      rewrite !(sum_ext n (fun j => 1 * exp _) (fun j => exp _)) in close by (intros; apply Rmult_1_l). exact close.
    + apply derivable_pt_lim_ln. assumption.
  - rewrite <- sum_scale. apply sum_ext; intros j _. unfold softmax. field. lra.
Qed.

(** d/dt ⟨softmax(f + t h), h⟩ is the variance of h under softmax(f + t h). *)
Lemma derivable_mean n f h t :
  (0 < n)%nat ->
  derivable_pt_lim (fun s => Σ j < n, softmax n (fun l => f l + s * h l) j * h j) t
    (variance n (softmax n (fun l => f l + t * h l)) h).
Proof.
  intros some.
  assert (positive : forall s, 0 < (Σ j < n, 1 * exp (f j + s * h j))).
  { intros s. apply sum_pos; [assumption|]. intros j. rewrite Rmult_1_l. apply exp_pos. }
  assert (plain : forall s, (Σ j < n, 1 * exp (f j + s * h j)) = (Σ j < n, exp (f j + s * h j)))
    by (intros s; apply sum_ext; intros; apply Rmult_1_l).
  assert (quotient : forall s, (Σ j < n, h j * exp (f j + s * h j)) / (Σ j < n, 1 * exp (f j + s * h j))
                               = (Σ j < n, softmax n (fun l => f l + s * h l) j * h j)).
  { intros s. unfold Rdiv. rewrite plain, <- sum_scale_right. apply sum_ext; intros j _. unfold softmax, Rdiv. ring. }
  assert (numerator := derivable_sum_exp n h f h t).
  assert (denominator := derivable_sum_exp n (fun _ => 1) f h t).
  assert (nonzero : (Σ j < n, 1 * exp (f j + t * h j)) <> 0) by (specialize (positive t); lra).
  assert (rule := derivable_pt_lim_div (fun s => Σ j < n, h j * exp (f j + s * h j))
                    (fun s => Σ j < n, 1 * exp (f j + s * h j)) t _ _ numerator denominator nonzero).
  match type of rule with derivable_pt_lim _ _ ?v =>
    replace (variance n (softmax n (fun l => f l + t * h l)) h) with v end.
  - intros eps pos. destruct (rule eps pos) as [delta close]. exists delta. intros r r_nonzero small.
    specialize (close r r_nonzero small). unfold div_fct in close. rewrite !quotient in close. exact close.
  - unfold variance. rewrite <- quotient.
    replace (Σ j < n, softmax n (fun l => f l + t * h l) j * (h j * h j))
      with ((Σ j < n, h j * h j * exp (f j + t * h j)) / (Σ j < n, 1 * exp (f j + t * h j))).
    + rewrite (sum_ext n (fun j => 1 * h j * exp (f j + t * h j)) (fun j => h j * exp (f j + t * h j)))
        by (intros; ring).
      unfold Rsqr. field. assumption.
    + unfold Rdiv. rewrite plain, <- sum_scale_right. apply sum_ext; intros j _. unfold softmax, Rdiv. ring.
Qed.

(** A bound V on the variance of h, under whatever probabilities, bounds the second order term by V / 2. *)
Lemma log_sum_exp_smooth n f h V :
  (0 < n)%nat ->
  (forall p, (Σ j < n, p j) = 1 -> (forall j, 0 <= p j) -> variance n p h <= V) ->
  ln (Σ j < n, exp (f j + h j)) <= ln (Σ j < n, exp (f j)) + (Σ j < n, softmax n f j * h j) + V / 2.
Proof.
  intros some bounded.
  set (L := fun t => ln (Σ j < n, exp (f j + t * h j))).
  set (L' := fun t => Σ j < n, softmax n (fun l => f l + t * h l) j * h j).
  set (L'' := fun t => variance n (softmax n (fun l => f l + t * h l)) h).
  assert (curved : forall t, L'' t <= V).
  { intros t. apply bounded; [apply softmax_total; assumption|].
    intros j. left. apply softmax_pos. assumption. }
  (* the mean value theorem, for L and again for L' *)
  assert (gap : L 1 - (L 0 + L' 0 + V / 2) <= 0).
  { set (phi := fun t => L t - (t * L' 0 + V / 2 * (t * t))).
    set (phi' := fun t => L' t - (L' 0 + V / 2 * (2 * t))).
    destruct (MVT_cor2 phi phi' 0 1) as [t [value between]]; [lra| |].
    - intros t _. unfold phi, phi'.
      apply (derivable_pt_lim_minus L (fun t => t * L' 0 + V / 2 * (t * t))).
      + apply derivable_log_sum_exp. assumption.
      + replace (L' 0 + V / 2 * (2 * t))
          with ((1 * L' 0 + t * 0) + V / 2 * (1 * t + t * 1)) by ring.
        apply (derivable_pt_lim_plus (fun t => t * L' 0) (fun t => V / 2 * (t * t))).
        * apply (derivable_pt_lim_mult id (fun _ => L' 0)); [apply derivable_pt_lim_id|apply derivable_pt_lim_const].
        * apply (derivable_pt_lim_scal (fun t => t * t)).
          apply (derivable_pt_lim_mult id id); apply derivable_pt_lim_id.
    - destruct (MVT_cor2 L' L'' 0 t) as [s [slope _]]; [lra| |].
      + intros s _. apply derivable_mean. assumption.
      + specialize (curved s). unfold phi, phi' in value.
        assert (L' t - L' 0 <= V * t) by (rewrite slope; nra).
        lra. }
  assert (start : L 0 = ln (Σ j < n, exp (f j))).
  { unfold L. f_equal. apply sum_ext; intros j _. f_equal. ring. }
  assert (finish : L 1 = ln (Σ j < n, exp (f j + h j))).
  { unfold L. f_equal. apply sum_ext; intros j _. f_equal. ring. }
  assert (slope : L' 0 = (Σ j < n, softmax n f j * h j)).
  { unfold L', softmax. apply sum_ext; intros j _.
    rewrite (sum_ext n (fun l => exp (f l + 0 * h l)) (fun l => exp (f l))) by (intros; f_equal; ring).
    rewrite Rmult_0_l, Rplus_0_r. reflexivity. }
  rewrite start, finish, slope in gap. lra.
Qed.

Theorem log_sum_exp_half_smooth n f h :
  (0 < n)%nat ->
  ln (Σ j < n, exp (f j + h j))
  <= ln (Σ j < n, exp (f j)) + (Σ j < n, softmax n f j * h j) + / 4 * square_norm n h.
Proof.
  intros some. replace (/ 4 * square_norm n h) with (square_norm n h / 2 / 2) by field.
  apply log_sum_exp_smooth; [assumption|]. intros p total nonneg. apply variance_le_half; assumption.
Qed.

Theorem log_sum_exp_range n f h a b :
  (0 < n)%nat -> (forall j, (j < n)%nat -> a <= h j <= b) ->
  ln (Σ j < n, exp (f j + h j))
  <= ln (Σ j < n, exp (f j)) + (Σ j < n, softmax n f j * h j) + / 8 * ((b - a) * (b - a)).
Proof.
  intros some within. replace (/ 8 * ((b - a) * (b - a))) with ((b - a) * (b - a) / 4 / 2) by field.
  apply log_sum_exp_smooth; [assumption|]. intros p total nonneg. apply variance_le_range; assumption.
Qed.
