(** The gradient written in Definitions.v is the gradient of Eq. 6: J's derivative in any direction D is ⟨G, D⟩. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions LogSumExp.
Open Scope R_scope.

Lemma logits_line d_in W D z t j :
  logits d_in (fun k a => W k a + t * D k a) z j = logits d_in W z j + t * logits d_in D z j.
Proof.
  unfold logits. rewrite <- sum_scale, <- sum_plus. apply sum_ext; intros; ring.
Qed.

Lemma cross_entropy_derivative n_c f h i :
  (i < n_c)%nat ->
  derivable_pt_lim (fun t => cross_entropy n_c (fun j => f j + t * h j) i) 0 (Σ j < n_c, residual n_c f i j * h j).
Proof.
  intros label. unfold cross_entropy.
  replace (Σ j < n_c, residual n_c f i j * h j)
    with (- (0 + (1 * h i + 0 * 0)) + (Σ j < n_c, softmax n_c (fun l => f l + 0 * h l) j * h j)).
  - apply (derivable_pt_lim_plus (fun t => - (f i + t * h i)) (fun t => ln (Σ j < n_c, exp (f j + t * h j)))).
    + apply (derivable_pt_lim_opp (fun t => f i + t * h i)).
      apply (derivable_pt_lim_plus (fun _ => f i) (fun t => t * h i)); [apply derivable_pt_lim_const|].
      apply (derivable_pt_lim_mult id (fun _ => h i)); [apply derivable_pt_lim_id|apply derivable_pt_lim_const].
    + apply derivable_log_sum_exp. lia.
  - unfold residual.
    rewrite (sum_ext n_c (fun j => (softmax n_c f j - one_hot i j) * h j)
               (fun j => softmax n_c f j * h j - one_hot i j * h j)) by (intros; ring).
    rewrite sum_minus, (sum_one_hot n_c i h) by assumption.
    assert (same : forall j, softmax n_c (fun l => f l + 0 * h l) j = softmax n_c f j).
    { intros j. unfold softmax. rewrite Rmult_0_l, Rplus_0_r. f_equal. apply sum_ext; intros; f_equal; ring. }
    rewrite (sum_ext n_c _ (fun j => softmax n_c f j * h j)) by (intros j _; rewrite same; reflexivity).
    ring.
Qed.

Theorem gradient_is_derivative n_c d_in z i W D :
  (i < n_c)%nat ->
  derivable_pt_lim (fun t => J n_c d_in z i (fun j a => W j a + t * D j a)) 0
    (Σ j < n_c, Σ a < d_in, gradient n_c d_in z i W j a * D j a).
Proof.
  intros label.
  replace (Σ j < n_c, Σ a < d_in, gradient n_c d_in z i W j a * D j a)
    with (Σ j < n_c, residual n_c (logits d_in W z) i j * logits d_in D z j).
  - intros eps pos.
    destruct (cross_entropy_derivative n_c (logits d_in W z) (logits d_in D z) i label eps pos) as [delta close].
    exists delta. intros r nonzero small. specialize (close r nonzero small).
    assert (line : forall t, J n_c d_in z i (fun j a => W j a + t * D j a)
                   = cross_entropy n_c (fun j => logits d_in W z j + t * logits d_in D z j) i).
    { intros t. unfold J, cross_entropy. rewrite logits_line. do 2 f_equal.
      apply sum_ext; intros. rewrite logits_line. reflexivity. }
    rewrite !line. exact close.
  - apply sum_ext; intros j _. unfold logits. rewrite <- sum_scale. apply sum_ext; intros a _.
    unfold gradient, logits. ring.
Qed.
